"""Project options out of Label Studio's "extra params": whatever JSON a person stored on the project's backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ovam_labeler.domain import ProjectOptions
from ovam_labeler.errors import BadRequestError
from ovam_labeler.options import project_options
from ovam_labeler.settings import Settings

_NAMES = tuple(field.name for field in fields(ProjectOptions))


def read_extra_params(settings: Settings, extra: object) -> tuple[dict[str, Any], list[str]]:
    """(usable options, one sentence per entry that is passed over).  ``extra`` is an object, JSON text, or null."""
    if isinstance(extra, str) and extra.strip():
        try:
            extra = json.loads(extra)
        except (ValueError, RecursionError):
            return {}, ["The backend's extra params are no JSON object and were passed over."]
    if not isinstance(extra, Mapping):
        return {}, []
    usable: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in extra.items():
        if name not in _NAMES:
            notes.append(f"The extra param '{name}' is unknown; known are {', '.join(_NAMES)}.")
            continue
        try:
            project_options(settings, {name: value})
        except BadRequestError as error:
            notes.append(str(error))
        else:
            usable[name] = value
    return usable, notes
