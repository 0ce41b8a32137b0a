"""Reads what a frame's shapes teach.

An event is one frame of a task, as :mod:`ovam_labeler.tools.cvat.pull` makes it of CVAT's API::

    {"id": "5@3", "task": "5", "frame": 3, "name": "a.png", "picture": "kept:<identity>", "size": [height, width],
     "saved": "...", "annotator": "ann", "labels": [{"name", "type", ...}], "done": true,
     "shapes": [{"id", "type", "label", "points", "source"}, ...]}

The id ends in ``@`` and what tells this picture from the task's others, as everywhere; annotators of two frames cannot
disagree.  CVAT keeps who made a shape in its ``source``: ``manual`` was drawn by a human, ``auto`` is a proposal left as it was,
``semi-auto`` is a proposal that a human changed (cvat-core's ``computeNewSource``), ``file`` was imported.  So a label
teaches when it has a shape of ``manual`` or ``semi-auto``.  A deleted proposal leaves no trace: where fewer proposals
of a label are left than were made for this frame, some were deleted, which counts only in a job that is ``done``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovam_labeler.domain import LoadedImage, Truth
from ovam_labeler.errors import BadConfigError, BadMaskError, BadRequestError
from ovam_labeler.masks.contours import filled
from ovam_labeler.tools.cvat import masks
from ovam_labeler.tools.cvat.labels import parse_labels
from ovam_labeler.truth import build_truths
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

TOOL = "cvat"

#: Sources of shapes a human drew or changed, and of proposals, changed or not.
TOUCHED, PROPOSED = ("manual", "semi-auto"), ("auto", "semi-auto")

#: Most points of a polygon that are read.
MAX_POINTS = 10_000


def taught_labels(event: Mapping[str, Any], served: ServedPrediction | None) -> tuple[str, ...]:
    """Labels with a shape that was drawn or changed, or a proposal that was deleted, in the config's order.

    Raises:
        BadRequestError: the event has no shapes or labels.
        BadConfigError: no label of the task can have masks.
    """
    known = parse_labels(_labels(event)).labels
    shapes = _shapes(event)
    taught = {s["label"] for s in shapes if s["source"] in TOUCHED}
    if served is not None and event.get("done") is True:
        left = Counter(s["label"] for s in shapes if s["source"] in PROPOSED)
        made = Counter(served.regions.values())
        taught |= {label for label, count in made.items() if left[label] < count}
    return tuple(label.name for label in known if label.name in taught)


def read_event(
    event: Mapping[str, Any], scope: Scope, served: ServedPrediction | None, *, exhaustive: bool | None = None
) -> NewCorrection | None:
    """A frame's correction, or None when it teaches nothing.

    Args:
        served: what was proposed for the frame.
        exhaustive: the project's option; stored with the correction.

    Raises:
        BadRequestError, BadConfigError: as :func:`taught_labels`.
    """
    labels = taught_labels(event, served)
    if not labels:
        return None
    return NewCorrection(
        scope=scope,
        annotation_id=str(event["id"]),
        updated_at=str(event.get("saved") or ""),
        task_id=str(event.get("task") or ""),
        image_ref=str(event.get("picture") or ""),
        payload={
            "tool": TOOL,
            "frame": event.get("frame"),
            "name": event.get("name"),
            "size": event.get("size"),
            "labels": json.loads(_labels(event)),
            "shapes": _shapes(event),
            "exhaustive": exhaustive,
            "served": None
            if served is None
            else {"model_version": served.model_version, "token_versions": dict(served.token_versions)},
        },
        labels=labels,
        annotator=str(event.get("annotator") or ""),
    )


def truths_of(correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
    """Decode a stored correction for its image: (one Truth a label it teaches, one sentence per skipped shape).

    A label of whose shapes one cannot be decoded is left out: its union would be wrong.
    """
    size = (image.height, image.width)
    given = correction.payload.get("size")
    if not isinstance(given, list) or tuple(given) != size:
        return [], [f"The shapes were drawn on a picture of {given} rows and columns; this one has {list(size)}."]
    try:
        known = {label.name for label in parse_labels(json.dumps(correction.payload.get("labels"))).labels}
        shapes = _shapes(correction.payload)
    except (BadConfigError, BadRequestError) as error:
        return [], [str(error)]
    regions: list[tuple[str, np.ndarray]] = []
    notes: list[str] = []
    unusable: set[str] = set()
    for shape in shapes:
        try:
            regions.append((shape["label"], shape_mask(shape, *size)))
        except BadMaskError as error:
            notes.append(f"{error} The label '{shape['label']}' teaches nothing here.")
            unusable.add(shape["label"])
    taught = [label for label in correction.labels if label in known and label not in unusable]
    exhaustive = correction.payload.get("exhaustive")
    truths = build_truths(size, regions, taught, exhaustive=exhaustive if isinstance(exhaustive, bool) else None)
    notes += [
        f"The shapes of '{truth.label}' cover the whole picture, which leaves nothing to learn from."
        for truth in truths
        if truth.mask.all()
    ]
    return [truth for truth in truths if not truth.mask.all()], notes


def shape_mask(shape: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """bool (height, width) of a mask or polygon.  Raises BadMaskError: another kind of shape, or unusable points."""
    kind, points = shape["type"], shape["points"]
    if kind == "mask":
        return masks.decode(points, height, width)
    if kind != "polygon":
        raise BadMaskError(f"A shape of the type '{kind}' is no mask.")
    try:
        numbers = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadMaskError("The polygon's points must be numbers.") from error
    if numbers.ndim != 1 or not 6 <= len(numbers) <= 2 * MAX_POINTS or len(numbers) % 2:
        raise BadMaskError(f"The polygon's points must be 3 to {MAX_POINTS} pairs of numbers.")
    if not np.isfinite(numbers).all():
        raise BadMaskError("The polygon's points must be finite.")
    corners = np.clip(numbers.reshape(-1, 2), (-width, -height), (2 * width, 2 * height))
    return filled(corners, height, width)


def _labels(event: Mapping[str, Any]) -> str:
    rows = event.get("labels")
    if not isinstance(rows, list):
        raise BadRequestError("The frame's field 'labels' must be the task's list of labels.")
    return json.dumps(rows)


def _shapes(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The frame's shapes, each with the fields that are read."""
    rows = event.get("shapes")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise BadRequestError("The frame's field 'shapes' must be a list of objects.")
    return [
        {
            "id": row.get("id"),
            "type": str(row.get("type")),
            "label": str(row.get("label")),
            "points": row.get("points"),
            "source": str(row.get("source") or "manual"),
        }
        for row in rows
    ]
