"""CVAT's labels, as its "Raw" constructor shows them: a JSON list of ``{"name", "type", "attributes", ...}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ovam_labeler.domain import Label
from ovam_labeler.errors import BadConfigError
from ovam_labeler.tools.contract import Control, ImageField, ParsedConfig

#: Label types whose shapes can be masks; ``any`` allows every kind of shape.
TYPES = ("any", "mask", "polygon")

#: Name of the text attribute whose default value is the words that stand for a label until it has a token.
PROMPT = "prompt"

#: A picture of a task; CVAT has one a frame.
FRAME = "frame"

MAX_CONFIG_LENGTH = 1_000_000


@lru_cache(maxsize=256)
def parse_labels(config: str) -> ParsedConfig:
    """The labels that masks or polygons may carry, in their order.

    A label of the type ``polygon`` is written as polygons, others as masks; ``region`` is ``"mask"``, or
    ``"polygon"`` where all are.

    Raises:
        BadConfigError: no JSON list of labels, or none of a type that masks can have.
    """
    if len(config) > MAX_CONFIG_LENGTH:
        raise BadConfigError(f"The labels have {len(config)} characters; at most {MAX_CONFIG_LENGTH} are allowed.")
    try:
        rows = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise BadConfigError("The labels are no JSON; copy them from the label constructor's Raw tab.") from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise BadConfigError("The labels must be a JSON list of objects with a name.")
    forms: dict[str, tuple[Label, str]] = {}
    notices: list[str] = []
    for row in rows:
        name, kind = row.get("name"), str(row.get("type") or "any")
        if not isinstance(name, str) or not name.strip():
            notices.append("A label without a name is ignored.")
        elif kind not in TYPES:
            notices.append(f"The label '{name}' is ignored: its type is '{kind}'; masks have {', '.join(TYPES)}.")
        elif name in forms:
            notices.append(f"The label '{name}' stands twice; the first counts.")
        else:
            forms[name] = (Label(name, _prompt(row)), "polygon" if kind == "polygon" else "mask")
    if not forms:
        raise BadConfigError(" ".join(["There is no label that masks can have.", *notices]))
    controls = tuple(
        Control(form, FRAME, form, tuple(label for label, of in forms.values() if of == form))
        for form in ("mask", "polygon")
        if any(of == form for _, of in forms.values())
    )
    labels = tuple(label for label, _ in forms.values())
    first = controls[0].form
    return ParsedConfig(labels, FRAME, first, FRAME, first, tuple(notices), controls, (ImageField(FRAME, FRAME),))


def form_of(config: ParsedConfig, label: str) -> str:
    """``"mask"`` or ``"polygon"``."""
    return next((c.form for c in config.controls if any(x.name == label for x in c.labels)), config.region)


def _prompt(row: Mapping[str, Any]) -> str | None:
    attributes = row.get("attributes")
    for attribute in attributes if isinstance(attributes, list) else ():
        if isinstance(attribute, Mapping) and attribute.get("name") == PROMPT:
            return str(attribute.get("default_value") or "").strip() or None
    return None
