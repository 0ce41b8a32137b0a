"""Reads a Label Studio label config (XML) into a :class:`~ovam_labeler.tools.contract.ParsedConfig`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ovam_labeler.domain import Label
from ovam_labeler.errors import BadConfigError
from ovam_labeler.tools.contract import Control, ImageField, ParsedConfig

#: Controls that carry their labels, and the type of their regions.
LABELLED = {"BrushLabels": "brushlabels", "BitmaskLabels": "bitmasklabels", "PolygonLabels": "polygonlabels"}

#: Controls that draw for a ``Labels`` tag of their own, in the order in which one is chosen to be written.
PAIRED = {"Brush": "brush", "MagicWand": "magicwand", "Bitmask": "bitmask", "Polygon": "polygon"}

#: Longest config that is parsed, in characters.
MAX_CONFIG_LENGTH = 1_000_000

#: Most pictures of one task that are read.
MAX_IMAGES = 32

#: A ``hint`` of more words than this is an instruction to annotators, not a name of the thing.
MAX_HINT_WORDS = 6

_KEY = re.compile(r"^\$([^\s$]+)$")
_FORMS = ", ".join([*LABELLED, *(f"{name} with Labels" for name in PAIRED)])


@lru_cache(maxsize=256)
def parse_label_config(config: str) -> ParsedConfig:
    """The image tags, the controls that draw masks on them, and their labels.

    A label's name is what Label Studio writes into regions: its ``alias`` where it has one, else its ``value``,
    verbatim.  ``prompt="..."``, else the first of ``predicted_values="a, b"``, else a short ``hint``, gives the
    attribution prompt.  A label of several controls of one picture is written by the first of them.

    Raises:
        BadConfigError: no XML, no image tag with ``value="$key"``, no control that draws masks, or no label in it.
    """
    root = _parse(config)
    notices: list[str] = []
    tags = list(root.iter("Image"))
    if not tags:
        raise BadConfigError('The label config has no image tag; add <Image name="image" value="$image"/>.')
    images = {field.name: field for tag in tags if (field := _image(tag, notices)) is not None}
    if not images:
        raise BadConfigError(
            'The label config\'s image tag takes no single task field; write it as <Image name="image" value="$image"/>.'
        )
    controls = list(_controls(root, images, notices))
    if not controls:
        if not any(tag.tag in LABELLED for tag in root.iter()):
            raise BadConfigError(
                f'The label config has no control that draws masks ({_FORMS}); add <BrushLabels name="tag" '
                'toName="image"><Label value="..."/></BrushLabels>.'
            )
        raise BadConfigError("The label config has no usable control that draws masks. " + " ".join(notices))
    used = {control.to_name for control in controls}
    notices += [f"The image tag '{name}' is ignored: nothing draws on it." for name in images if name not in used]
    labels: dict[str, Label] = {}
    for control in controls:
        for label in control.labels:
            labels.setdefault(label.name, label)
    first = controls[0]
    fields = tuple(field for name, field in images.items() if name in used)
    # One label is one class, whatever picture it is drawn on: its prompt is the first one given.
    controls = [
        Control(c.name, c.to_name, c.form, tuple(labels[x.name] for x in c.labels), c.labels_name) for c in controls
    ]
    return ParsedConfig(
        tuple(labels.values()),
        images[first.to_name].key,
        first.labels_name or first.name,
        first.to_name,
        first.form,
        tuple(notices),
        tuple(controls),
        fields,
    )


def labels_on(config: ParsedConfig, to_name: str) -> tuple[Label, ...]:
    """The labels drawn on one picture, each once."""
    return tuple(dict.fromkeys(label for c in config.controls if c.to_name == to_name for label in c.labels))


def control_of(config: ParsedConfig, to_name: str, label: str) -> Control | None:
    """The control that writes a label on a picture: the first that has it."""
    found = (c for c in config.controls if c.to_name == to_name and any(x.name == label for x in c.labels))
    return next(found, None)


def _parse(config: str) -> Element:
    if not isinstance(config, str) or not config.strip():
        raise BadConfigError(
            "The label config is empty; give the project a labeling interface with an image and BrushLabels."
        )
    if len(config) > MAX_CONFIG_LENGTH:
        raise BadConfigError(f"The label config has {len(config)} characters; at most {MAX_CONFIG_LENGTH} are allowed.")
    try:
        return fromstring(config)
    except ParseError as error:
        raise BadConfigError(f"The label config is not well-formed XML: {error}.") from error
    except (DefusedXmlException, ValueError) as error:
        raise BadConfigError("The label config may not declare entities or a document type.") from error
    except RecursionError as error:
        raise BadConfigError("The label config is nested too deeply.") from error


def _image(tag: Element, notices: list[str]) -> ImageField | None:
    name = tag.get("name", "")
    listed = tag.get("valueList") or tag.get("valuelist") or ""
    value = listed or tag.get("value", "")
    found = _KEY.match(value)
    if found is None:
        notices.append(f"The image tag '{name}' is ignored: its value '{value}' is not of the form $key.")
        return None
    return ImageField(name, found.group(1), many=bool(listed))


def _controls(root: Element, images: dict[str, ImageField], notices: list[str]) -> Iterator[Control]:
    """Usable controls in the config's order."""
    paired: set[str] = set()
    for tag in root.iter():
        if tag.tag in LABELLED:
            form, labels_name, name = LABELLED[tag.tag], "", tag.get("name", "")
        elif tag.tag == "Labels" and tag.get("toName", "") in images:
            drawing = _drawing_tag(root, tag.get("toName", ""))
            if drawing is None:
                notices.append(
                    f"The control '{tag.get('name', '')}' is ignored: no {', '.join(PAIRED)} draws masks for its labels."
                )
                continue
            form, labels_name, name = PAIRED[drawing.tag], tag.get("name", ""), drawing.get("name", "")
            paired.add(name)
        else:
            continue
        shown, target = tag.get("name", ""), tag.get("toName", "")
        if target not in images:
            notices.append(f"The control '{shown}' is ignored: its toName '{target}' names no usable image tag.")
            continue
        labels = _labels(tag, shown, notices)
        if labels:
            yield Control(name, target, form, labels, labels_name)
        else:
            notices.append(f"The control '{shown}' is ignored: it has no <Label value=\"...\"/>.")
    for tag in root.iter():
        if tag.tag in PAIRED and tag.get("name", "") not in paired:
            notices.append(f"The control '{tag.get('name', '')}' is read, and not written: another one is.")


def _drawing_tag(root: Element, target: str) -> Element | None:
    """The unlabelled control that draws for the ``Labels`` of a picture."""
    found = (tag for kind in PAIRED for tag in root.iter(kind) if tag.get("toName", "") == target)
    return next(found, None)


def _labels(control: Element, name: str, notices: list[str]) -> tuple[Label, ...]:
    if (control.get("value") or "").startswith("$"):
        notices.append(
            f"The labels that the control '{name}' takes from task data ({control.get('value')}) are ignored."
        )
    labels: dict[str, Label] = {}
    nested = {id(inner) for outer in control.iter("Label") for inner in outer.iter("Label") if inner is not outer}
    for tag in control.iter("Label"):
        text = tag.get("alias") or tag.get("value") or ""
        if id(tag) in nested:
            notices.append(f"The label '{text}' below another one in the control '{name}' is ignored: labels are flat.")
        elif not text.strip():
            notices.append(f"A label without text in the control '{name}' is ignored.")
        elif text in labels:
            notices.append(f"The label '{text}' stands twice in the control '{name}'; the first counts.")
        else:
            labels[text] = Label(text, _prompt(tag, text, notices))
    return tuple(labels.values())


def _prompt(tag: Element, text: str, notices: list[str]) -> str | None:
    given = tag.get("prompt") or next((v for v in (tag.get("predicted_values") or "").split(",") if v.strip()), "")
    hint = (tag.get("hint") or "").strip()
    if not given.strip() and hint:
        if len(hint.split()) <= MAX_HINT_WORDS:
            given = hint
        else:
            notices.append(f"The hint of the label '{text}' is longer than {MAX_HINT_WORDS} words and is no prompt.")
    return given.strip() or None
