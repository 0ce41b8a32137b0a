"""Reads a Label Studio label config (XML) into a :class:`~ovam_labeler.tools.contract.ParsedConfig`."""

from __future__ import annotations

import re
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ovam_labeler.domain import Label
from ovam_labeler.errors import BadConfigError
from ovam_labeler.tools.contract import ParsedConfig

#: Controls whose regions this version writes.
WRITTEN = {"BrushLabels": "brushlabels"}

#: Longest config that is parsed, in characters.
MAX_CONFIG_LENGTH = 1_000_000

_KEY = re.compile(r"^\$([^\s$]+)$")


@lru_cache(maxsize=256)
def parse_label_config(config: str) -> ParsedConfig:
    """The image tag, the brush control and its labels.

    A label's name is what Label Studio writes into regions: its ``alias`` where it has one, else its ``value``,
    verbatim.  ``predicted_values="a, b"`` (its first entry) or ``prompt="..."`` gives the attribution prompt.

    Raises:
        BadConfigError: no XML, no image tag with ``value="$key"``, no ``BrushLabels``, or no label in it.
    """
    root = _parse(config)
    notices: list[str] = []
    images = {tag.get("name", ""): tag for tag in root.iter("Image")}
    keys = {name: key for name, tag in images.items() if (key := _image_key(tag, name, notices)) is not None}
    if not images:
        raise BadConfigError('The label config has no image tag; add <Image name="image" value="$image"/>.')
    if not keys:
        raise BadConfigError(
            'The label config\'s image tag takes no single task field; write it as <Image name="image" value="$image"/>.'
        )
    controls = [tag for kind in WRITTEN for tag in root.iter(kind)]
    if not controls:
        raise BadConfigError(
            'The label config has no BrushLabels, the one control this version writes; add <BrushLabels name="tag" '
            'toName="image"><Label value="..."/></BrushLabels>.'
        )
    chosen: ParsedConfig | None = None
    for control in controls:
        name, target = control.get("name", ""), control.get("toName", "")
        if chosen is not None:
            notices.append(
                f"The control '{name}' is ignored: only the first usable one, '{chosen.control}', is written."
            )
            continue
        if target not in keys:
            notices.append(f"The control '{name}' is ignored: its toName '{target}' names no usable image tag.")
            continue
        labels = _labels(control, name, notices)
        if not labels:
            notices.append(f"The control '{name}' is ignored: it has no <Label value=\"...\"/>.")
            continue
        chosen = ParsedConfig(labels, keys[target], name, target, WRITTEN[control.tag])
    if chosen is None:
        raise BadConfigError("The label config has no usable BrushLabels. " + " ".join(notices))
    notices += [f"The image tag '{name}' is ignored." for name in images if name != chosen.to_name]
    return ParsedConfig(chosen.labels, chosen.image_key, chosen.control, chosen.to_name, chosen.region, tuple(notices))


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


def _image_key(tag: Element, name: str, notices: list[str]) -> str | None:
    found = _KEY.match(tag.get("value", ""))
    if found is None:
        notices.append(
            f"The image tag '{name}' is ignored: its value '{tag.get('value', '')}' is not of the form $key."
        )
        return None
    return found.group(1)


def _labels(control: Element, name: str, notices: list[str]) -> tuple[Label, ...]:
    labels: dict[str, Label] = {}
    for tag in control.iter("Label"):
        text = tag.get("alias") or tag.get("value") or ""
        if not text.strip():
            notices.append(f"A label without text in the control '{name}' is ignored.")
        elif text in labels:
            notices.append(f"The label '{text}' stands twice in the control '{name}'; the first counts.")
        else:
            hint = tag.get("prompt") or (tag.get("predicted_values") or "").split(",")[0]
            labels[text] = Label(text, hint.strip() or None)
    return tuple(labels.values())
