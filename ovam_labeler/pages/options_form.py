"""The form of a project's options: its fields with what they mean, and what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backends import discovery
from ovam_labeler.domain import ProjectOptions
from ovam_labeler.errors import BadRequestError
from ovam_labeler.options import project_options, tool_options
from ovam_labeler.propose import NO_REFINER
from ovam_labeler.settings import Settings

Kind = Literal["choice", "flag", "number", "fraction"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        name: of the option.
        words, about: its label, and one sentence on what it does.
        value: as shown: of the option as it holds now.
        choices: value -> words, of a ``choice``.
        least, most: of a ``number``.
        fixed: the labeling tool sets it, so that it cannot be changed here.
    """

    name: str
    kind: Kind
    words: str
    about: str
    value: str
    choices: Mapping[str, str]
    least: int = 0
    most: int = 0
    fixed: bool = False


def fields(settings: Settings, stored: Mapping[str, Any]) -> list[Field]:
    """The fields in order, filled with what holds now."""
    now, fixed = project_options(settings, stored), tool_options(stored)
    exhaustive = {None: "", True: "yes", False: "no"}[now.exhaustive]
    rows: list[tuple[str, Kind, str, str, str, Mapping[str, str], int, int]] = [
        (
            "words", "flag", "Propose classes without a token by their word",
            "Off: a class is proposed from its first correction on.", _flag(now.words), {}, 0, 0,
        ),
        (
            "presence", "flag", "Leave out classes judged absent",
            "Off: every class is drawn in every picture.", _flag(now.presence), {}, 0, 0,
        ),
        (
            "overlap", "choice", "Where two classes meet", "", now.overlap,
            {"exclusive": "a pixel belongs to one class", "independent": "masks may overlap"}, 0, 0,
        ),
        (
            "regions", "choice", "One region", "Polygons are always one an object.", now.regions,
            {"class": "for each class", "object": "for each connected object"}, 0, 0,
        ),
        (
            "exhaustive", "choice", "What is not drawn in a corrected picture", "", exhaustive,
            {"": "is background for the classes corrected there", "yes": "is background for every class",
             "no": "says nothing"}, 0, 0,
        ),
        (
            "method", "choice", "Method", "", now.method, _names(discovery.methods()), 0, 0,
        ),
        (
            "refiner", "choice", "Refiner", "Sharpens masks along the picture's edges; costs time on every mask.",
            now.refiner, {NO_REFINER: NO_REFINER} | _names(discovery.refiners()), 0, 0,
        ),
        (
            "threshold", "fraction", "Threshold", "0 to 1, relative to a map's maximum; empty: calibrated for the model.",
            "" if now.threshold is None else f"{now.threshold:g}", {}, 0, 1,
        ),
        (
            "push", "number", "Tasks predicted again when a token lands", "The next open ones; 0 for none.",
            str(now.push), {}, 0, 1000,
        ),
        (
            "max_regions", "number", "Most regions of a class", "", str(now.max_regions), {}, 1, 200,
        ),
        (
            "polygon_points", "number", "Most points of a polygon", "", str(now.polygon_points), {}, 8, 1000,
        ),
        (
            "tiles", "number", "Parts along the longer side",
            "Large pictures are also read in parts, for small objects; 1 reads the whole only.", str(now.tiles), {}, 1, 8,
        ),
    ]  # fmt: skip
    return [Field(*row, fixed=row[0] in fixed) for row in rows]


def read_fields(settings: Settings, stored: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """The changes a sent form makes; an option that is left at its default is removed.  Fixed ones are passed over.

    Raises:
        BadRequestError: a field has a wrong value; names it and what is allowed.
    """
    changes: dict[str, Any] = {}
    for field in fields(settings, stored):
        if field.fixed:
            continue
        text = form.get(field.name, "").strip()
        value: Any = text
        if field.kind == "flag":
            value = form.get(field.name) == "on"
        elif field.name == "exhaustive":
            value = {"": None, "yes": True, "no": False}.get(text, text)
        elif field.kind in ("number", "fraction"):
            value = _number(text, field)
        elif text not in field.choices:
            raise BadRequestError(f"The field {field.name} is {text[:40]!r}; allowed are {', '.join(field.choices)}.")
        changes[field.name] = value
    project_options(settings, {k: v for k, v in changes.items() if v is not None})
    default = project_options(settings)
    return {name: None if value == getattr(default, name) else value for name, value in changes.items()}


def read_classes(form: Mapping[str, str], named: Sequence[str]) -> list[str] | None:
    """The classes to learn; None = all.

    Raises:
        BadRequestError: "only these" without any.
    """
    if form.get("which", "all") == "all":
        return None
    if not named:
        raise BadRequestError("Tick at least one class to learn, or choose all.")
    return list(dict.fromkeys(named))


def known_classes(note: Mapping[str, Any], others: Sequence[str], options: ProjectOptions) -> list[str]:
    """Labels of the config (the note ``labels``), classes that learned, and those listed; each once, the config's first."""
    rows = note.get("labels")
    named = [str(row[1]) for row in rows if isinstance(row, list) and len(row) > 1] if isinstance(rows, list) else []
    return list(dict.fromkeys([*named, *sorted(others), *(options.classes or ())]))


def _number(text: str, field: Field) -> float | int | None:
    try:
        if field.kind == "fraction":
            return float(text) if text else None
        return int(text)
    except ValueError:
        kind = "a whole number" if field.kind == "number" else "a number"
        allowed = f"{kind} from {field.least} to {field.most}"
        raise BadRequestError(f"The field {field.name} is {text[:40]!r}; {allowed} is allowed.") from None


def _flag(value: bool) -> str:
    return "on" if value else ""


def _names(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: name for name, item in found.items() if not item.error}
