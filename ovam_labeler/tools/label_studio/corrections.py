"""Reads what an annotator's submit teaches.

The rule: a label teaches when any of its regions was drawn (``manual``), edited (``prediction-changed``) or deleted;
its target is then the union of all its regions, whatever their origin.  A label whose regions were all deleted is a
negative.  Skips, drafts and wholly untouched predictions teach nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from ovam_labeler.domain import LoadedImage, Truth
from ovam_labeler.errors import BadConfigError, BadMaskError, BadRequestError
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.regions import Region, read_regions, region_mask
from ovam_labeler.truth import build_truths
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

TOOL = "label_studio"

#: Origins of regions a human drew or changed.
_TOUCHED = ("manual", "prediction-changed")


@dataclass(frozen=True, slots=True)
class Reading:
    """What an annotation event says: a correction, or why it teaches nothing, with one sentence per skipped region."""

    correction: NewCorrection | None
    reason: str
    notes: tuple[str, ...] = ()


def read_event(
    event: Mapping[str, Any], scope: Scope, served: ServedPrediction | None, *, exhaustive: bool | None = None
) -> Reading:
    """Read an ANNOTATION_CREATED or ANNOTATION_UPDATED body.

    Args:
        served: the prediction last given for the task, to see which of its regions were deleted.
        exhaustive: the project's option; stored with the correction, which is decoded later.

    Raises:
        BadRequestError: no annotation or task in the body.
        BadConfigError: the project's label config is unusable.
    """
    annotation, task = _mapping(event, "annotation"), _mapping(event, "task")
    annotation_id = _identifier(annotation, "annotation")
    task_id = _identifier(task, "task")
    if annotation.get("was_cancelled"):
        return Reading(None, "The task was skipped.")
    config_text = str(_mapping(event, "project").get("label_config") or "")
    config = parse_label_config(config_text)
    regions, notes = read_regions(annotation.get("result"))
    known = {label.name for label in config.labels}
    notes += [
        f"Region '{r.id}' has the label '{r.label}', which the label config does not have; it was skipped."
        for r in regions
        if r.label not in known
    ]
    regions = [r for r in regions if r.label in known]
    labels = _taught(regions, known, served if annotation.get("parent_prediction") is not None else None)
    if not labels:
        return Reading(None, "No region was drawn, edited or deleted.", tuple(notes))
    data = _mapping(task, "data")
    image_ref = image_reference(data, config)
    payload = {
        "tool": TOOL,
        "annotation": {
            key: annotation.get(key)
            for key in ("id", "result", "created_at", "updated_at", "parent_prediction", "lead_time", "ground_truth")
        },
        "task": {"id": task.get("id"), "prompt": _text(data.get("prompt"))},
        "label_config": config_text,
        "exhaustive": exhaustive,
        "served": None
        if served is None
        else {"model_version": served.model_version, "token_versions": dict(served.token_versions)},
    }
    who = annotation.get("updated_by") or annotation.get("completed_by")
    return Reading(
        NewCorrection(
            scope=scope,
            annotation_id=annotation_id,
            updated_at=str(annotation.get("updated_at") or annotation.get("created_at") or ""),
            task_id=task_id,
            image_ref=image_ref,
            payload=payload,
            labels=tuple(label.name for label in config.labels if label.name in labels),
            annotator=_annotator(who),
        ),
        "",
        tuple(notes),
    )


def image_reference(data: Mapping[str, Any], config: ParsedConfig) -> str:
    """How the task names its image, without a user name or password in the URL.

    Raises:
        BadRequestError: the task has no such field, or it is no text.
    """
    value: Any = data.get(config.image_key)
    if value is None and "." in config.image_key:
        value = data
        for part in config.image_key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f"The task has no image in its field '{config.image_key}'.")
    try:
        parts = urlsplit(value.strip())
    except ValueError as error:
        raise BadRequestError(f"The task's field '{config.image_key}' is no usable address.") from error
    if "@" in parts.netloc:
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        return urlunsplit(parts)
    return value.strip()


def truths_of(correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
    """Decode a stored correction for its image.

    Returns:
        (one Truth a label it teaches, one sentence per skipped region or label).  A label of whose regions one cannot
        be decoded is left out: its union would be wrong.
    """
    annotation = correction.payload.get("annotation")
    regions, notes = read_regions(annotation.get("result") if isinstance(annotation, Mapping) else None)
    try:
        known = {label.name for label in parse_label_config(str(correction.payload.get("label_config", ""))).labels}
    except BadConfigError as error:
        return [], [str(error)]
    notes += [
        f"Region '{r.id}' has the label '{r.label}', which the label config does not have; it was skipped."
        for r in regions
        if r.label not in known
    ]
    masks: list[tuple[str, np.ndarray]] = []
    unusable: set[str] = set()
    for region in regions:
        try:
            masks.append((region.label, region_mask(region, image.height, image.width)))
        except BadMaskError as error:
            unusable.add(region.label)
            notes.append(f"{error} The label '{region.label}' teaches nothing here.")
    taught = [label for label in correction.labels if label not in unusable]
    exhaustive = correction.payload.get("exhaustive")
    truths = build_truths(
        (image.height, image.width), masks, taught, exhaustive=exhaustive if isinstance(exhaustive, bool) else None
    )
    for truth in truths:
        if truth.mask.all():
            notes.append(f"The regions of '{truth.label}' cover the whole picture, which leaves nothing to learn from.")
    return [truth for truth in truths if not truth.mask.all()], notes


def _taught(regions: list[Region], known: set[str], served: ServedPrediction | None) -> set[str]:
    """Labels with a region drawn, edited or deleted."""
    taught = {region.label for region in regions if region.origin in _TOUCHED}
    if served is None:
        return taught
    here = {region.id: region.label for region in regions}
    from_prediction = {region.id for region in regions if region.origin in ("prediction", "prediction-changed")}
    if from_prediction - set(served.regions):
        # The annotator worked on another prediction than the last one served: what is missing says nothing.
        return taught
    return taught | {label for name, label in served.regions.items() if label in known and here.get(name) != label}


def _mapping(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    if not isinstance(value, Mapping):
        raise BadRequestError(f"The body's field '{key}' must be an object.")
    return value


def _identifier(body: Mapping[str, Any], what: str) -> str:
    value = body.get("id")
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value):
        raise BadRequestError(f"The {what}'s id must be a number or text.")
    return str(value)


def _annotator(who: object) -> str:
    if isinstance(who, Mapping):
        who = who.get("id")
    return str(who) if isinstance(who, int | str) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
