"""Writes proposals as CVAT's shapes, in pixels of the picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovam_labeler.domain import ProjectOptions, Proposal
from ovam_labeler.errors import BadMaskError
from ovam_labeler.masks.components import calmed, components, sizes
from ovam_labeler.masks.contours import one_line
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.cvat import masks
from ovam_labeler.tools.cvat.labels import form_of


def write_shapes(
    proposals: Sequence[Proposal],
    config: ParsedConfig,
    image_size: tuple[int, int],
    version: str,
    *,
    options: ProjectOptions | None = None,
    form: str = "",
    least: float = 0.0,
    frame_name: str = "",
) -> dict[str, Any]:
    """``{"version", "shapes"}`` of one picture; ``shapes`` may be empty.

    A shape has the fields of ``LabeledShapeRequest`` (``label_id`` is the label's place in the config, ``frame`` 0),
    ``label``, its name, and ``region``, a name for it that depends on nothing but picture, version, label and form.

    Args:
        image_size: (height, width), which every mask must have.
        options: ``regions`` (one a class, or one for each object), ``max_regions``, ``polygon_points`` are used.
        form: ``"mask"`` or ``"polygon"`` for every label; empty: as its type says.
        least: shapes of a lower score are left out; 0..1.
        frame_name: makes names of regions unique.

    Raises:
        BadMaskError: a mask of another size than the image.
    """
    how = options or ProjectOptions()
    places = {label.name: number for number, label in enumerate(config.labels)}
    shapes: list[dict[str, Any]] = []
    for proposal in proposals:
        if proposal.mask.shape != tuple(image_size):
            raise BadMaskError(
                f"The mask of '{proposal.label}' has the size {proposal.mask.shape}; the image has {tuple(image_size)}."
            )
        if not proposal.present or proposal.label not in places or proposal.score < least:
            continue
        kind = form or form_of(config, proposal.label)
        for points in _points(proposal.mask, kind, how):
            shapes.append(
                {
                    "type": kind,
                    "label_id": places[proposal.label],
                    "label": proposal.label,
                    "frame": 0,
                    "points": points,
                    "score": float(proposal.score),
                    "region": _name(frame_name, version, proposal.label, points),
                }
            )
    return {"version": version, "shapes": shapes}


def _points(mask: np.ndarray, form: str, options: ProjectOptions) -> list[list[Any]]:
    """Points of each region of a label, largest first."""
    mask = calmed(np.asarray(mask, dtype=bool))
    if not mask.any():
        return []
    if form == "mask" and options.regions == "class":
        return [masks.encode(mask)]
    numbered, count = components(mask)
    order = np.argsort(-sizes(numbered, count), kind="stable")[: options.max_regions]
    parts = [numbered == number + 1 for number in order]
    return [masks.encode(part) if form == "mask" else _outline(part, options.polygon_points) for part in parts]


def _outline(mask: np.ndarray, most: int) -> list[float]:
    """``[x0, y0, x1, y1, ...]`` of one connected object; a hole is a cut in the line, since CVAT's polygons have none."""
    return [round(float(value), 2) for value in one_line(mask, most).ravel()]


def _name(frame_name: str, version: str, label: str, points: Sequence[float]) -> str:
    text = json.dumps([frame_name, version, label, list(points)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]
