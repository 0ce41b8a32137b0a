"""Reads what an annotator's submit teaches.

The rule: a label teaches when any of its regions was drawn (``manual``), edited (``prediction-changed``) or deleted;
its target is then the union of all its regions, whatever their origin.  A label whose regions were all deleted is a
negative.  Skips, drafts and wholly untouched predictions teach nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ovam_labeler.domain import LoadedImage, Truth
from ovam_labeler.errors import BadConfigError, BadMaskError, BadRequestError
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.predictions import picture_mark
from ovam_labeler.tools.label_studio.regions import Region, read_regions, region_mask
from ovam_labeler.tools.label_studio.task_images import TaskImage, task_images
from ovam_labeler.truth import build_truths
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

TOOL = "label_studio"

#: Origins of regions a human drew or changed.
_TOUCHED = ("manual", "prediction-changed")


@dataclass(frozen=True, slots=True)
class Reading:
    """What an annotation event says: a correction for each picture that was corrected, or why it teaches nothing.

    Attributes:
        notes: one sentence per skipped region.
        untaught: annotation ids under which the task's other pictures would be known: what they taught before an
            update no longer stands.
    """

    corrections: tuple[NewCorrection, ...]
    reason: str
    notes: tuple[str, ...] = ()
    untaught: tuple[str, ...] = ()

    @property
    def correction(self) -> NewCorrection | None:
        """Of the first picture that was corrected, usually the only one."""
        return self.corrections[0] if self.corrections else None


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
        return Reading((), "The task was skipped.", (), (annotation_id,))
    config_text = str(_mapping(event, "project").get("label_config") or "")
    config = parse_label_config(config_text)
    regions, notes = read_regions(annotation.get("result"))
    known = {label.name for label in config.labels}
    notes += _unknown(regions, known)
    regions = [r for r in regions if r.label in known]
    data = _mapping(task, "data")
    pictures = task_images(data, config)
    given = served if annotation.get("parent_prediction") is not None else None
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
    corrections, untaught = [], []
    for picture in pictures:
        labels = _taught(_on(regions, picture, pictures), known, _served_on(given, picture, pictures))
        name = annotation_id + picture.suffix
        if not labels:
            untaught.append(name)
            continue
        corrections.append(
            NewCorrection(
                scope=scope,
                annotation_id=name,
                updated_at=str(annotation.get("updated_at") or annotation.get("created_at") or ""),
                task_id=task_id,
                image_ref=picture.reference,
                payload=payload
                if len(pictures) == 1
                else {**payload, "picture": {"name": picture.name, "item": picture.item}},
                labels=tuple(label.name for label in config.labels if label.name in labels),
                annotator=_annotator(annotation.get("updated_by") or annotation.get("completed_by")),
            )
        )
    reason = "" if corrections else "No region was drawn, edited or deleted."
    return Reading(tuple(corrections), reason, tuple(notes), tuple(untaught))


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
    if isinstance(names := correction.payload.get("renamed"), Mapping):  # labels that have another name since
        regions = [replace(r, label=str(names.get(r.label, r.label))) for r in regions]
        known = {str(names.get(name, name)) for name in known}
    regions = _on_stored(regions, correction.payload.get("picture"))
    notes += _unknown(regions, known)
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


def _unknown(regions: list[Region], known: set[str]) -> list[str]:
    return [
        f"Region '{r.id}' has the label '{r.label}', which the label config does not have; it was skipped."
        for r in regions
        if r.label not in known
    ]


def _on(regions: list[Region], picture: TaskImage, pictures: list[TaskImage]) -> list[Region]:
    """The regions of one picture; of a task with a single one, all of them."""
    return regions if len(pictures) == 1 else [r for r in regions if picture.shows(r.to_name, r.item)]


def _on_stored(regions: list[Region], picture: object) -> list[Region]:
    """As :func:`_on`, for a stored correction's picture."""
    if not isinstance(picture, Mapping):
        return regions
    return [r for r in regions if r.to_name == picture.get("name") and (r.item or 0) == (picture.get("item") or 0)]


def _served_on(
    served: ServedPrediction | None, picture: TaskImage, pictures: list[TaskImage]
) -> ServedPrediction | None:
    """What was served, with the regions of one picture."""
    if served is None or len(pictures) == 1:
        return served
    marks = {picture_mark(p.suffix) for p in pictures if p.suffix}
    mine = picture_mark(picture.suffix)
    kept = {
        name: label
        for name, label in served.regions.items()
        if (name.endswith(mine) if mine else not any(name.endswith(mark) for mark in marks))
    }
    return replace(served, regions=kept)


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
