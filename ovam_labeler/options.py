"""A project's options: the process's settings, overridden by what was set for the project."""

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


def project_options(settings: Settings, stored: Mapping[str, Any] | None = None) -> ProjectOptions:
    """Options of a project; unknown keys of ``stored`` are ignored (written for a later version).

    Raises:
        BadRequestError: an option has a wrong value; the sentence names it and what is allowed.
    """
    given = dict(stored or {})
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
    )


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
