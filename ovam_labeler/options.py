"""A project's options.  What the labeling tool says of the project (Label Studio's extra parameters) goes before what was
set on the pages, and that before the process's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovam_labeler.domain import ProjectOptions
from ovam_labeler.errors import BadRequestError
from ovam_labeler.settings import Settings

_OVERLAPS = ("exclusive", "independent")
#: What becomes of a new token; see :class:`ovam_labeler.domain.ProjectOptions`.
POLICIES = ("auto", "gate", "manual")
_REGIONS = ("class", "object")

#: Where the options that the labeling tool sets are stored, among those of the pages.
TOOL_OPTIONS = "extra_params"

#: Most classes listed, and characters of a name.
MOST_CLASSES, MOST_CHARACTERS = 1000, 1000


def project_options(settings: Settings, stored: Mapping[str, Any] | None = None) -> ProjectOptions:
    """Options of a project; unknown keys of ``stored`` are ignored (written for a later version).

    Args:
        stored: as the store keeps them: those of the pages, and under :data:`TOOL_OPTIONS` those of the labeling tool,
            which go first.

    Raises:
        BadRequestError: an option has a wrong value; the sentence names it and what is allowed.
    """
    given = {**(stored or {}), **tool_options(stored or {})}
    default = ProjectOptions(method=settings.method, refiner=settings.refiner, overlap=settings.overlap)
    overlap = given.get("overlap", default.overlap)
    if overlap not in _OVERLAPS:
        raise BadRequestError(f"The option 'overlap' is {overlap!r}; allowed are {' and '.join(_OVERLAPS)}.")
    regions = given.get("regions", default.regions)
    if regions not in _REGIONS:
        raise BadRequestError(f"The option 'regions' is {regions!r}; allowed are {' and '.join(_REGIONS)}.")
    policy = given.get("policy", default.policy)
    if policy not in POLICIES:
        raise BadRequestError(f"The option 'policy' is {policy!r}; allowed are auto, gate and manual.")
    return ProjectOptions(
        method=_name(given, "method", default.method),
        refiner=_name(given, "refiner", default.refiner),
        overlap=overlap,
        exhaustive=_flag(given, "exhaustive") if given.get("exhaustive") is not None else None,
        threshold=_fraction(given, "threshold"),
        presence=_flag(given, "presence", default.presence),
        words=_flag(given, "words", default.words),
        learning=_flag(given, "learning", default.learning),
        policy=policy,
        regions=regions,
        push=_count(given, "push", default.push, 0, 1000),
        max_regions=_count(given, "max_regions", default.max_regions, 1, 200),
        polygon_points=_count(given, "polygon_points", default.polygon_points, 8, 1000),
        tiles=_count(given, "tiles", default.tiles, 1, 8),
        classes=_names(given, "classes"),
    )


def tool_options(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a project's stored options that its labeling tool sets, and the pages cannot change."""
    found = stored.get(TOOL_OPTIONS)
    return found if isinstance(found, Mapping) else {}


def _name(given: Mapping[str, Any], key: str, default: str) -> str:
    value = given.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f"The option '{key}' is {value!r}; a plugin's name is needed.")
    return value


def _flag(given: Mapping[str, Any], key: str, default: bool = True) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise BadRequestError(f"The option '{key}' is {value!r}; true or false is allowed.")
    return value


def _count(given: Mapping[str, Any], key: str, default: int, least: int, most: int) -> int:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequestError(f"The option '{key}' is {value!r}; a whole number in {least}..{most} is allowed.")
    return value


def _fraction(given: Mapping[str, Any], key: str) -> float | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRequestError(f"The option '{key}' is {value!r}; a number in 0..1, or null, is allowed.")
    return float(value)


def _names(given: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = given.get(key)
    if value is None:
        return None
    named = isinstance(value, list | tuple) and all(isinstance(v, str) and 0 < len(v) <= MOST_CHARACTERS for v in value)
    if not named or not 0 < len(value) <= MOST_CLASSES:
        raise BadRequestError(
            f"The option '{key}' is {str(value)[:80]!r}; a list of 1 to {MOST_CLASSES} class names, or null, is allowed."
        )
    return tuple(dict.fromkeys(value))
