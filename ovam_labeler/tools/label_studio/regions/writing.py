"""Writes a mask as the regions that a control of the label config has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ovam_labeler.masks.components import calmed, components, sizes
from ovam_labeler.tools.contract import Control
from ovam_labeler.tools.label_studio.regions import bitmask, brush, polygon


@dataclass(frozen=True, slots=True)
class RegionOptions:
    """How masks are written.

    Attributes:
        per: one region a ``"class"``, or one for each connected ``"object"``.  Polygons are always one an object.
        most: regions of one label on one picture at most; the largest stay.
        points: of one polygon at most.
    """

    per: Literal["class", "object"] = "class"
    most: int = 50
    points: int = 80


@dataclass(frozen=True, slots=True)
class WrittenRegion:
    """One region: its mask after smoothing, and its value on the wire without labels."""

    mask: np.ndarray
    value: Mapping[str, Any]


def write_regions(mask: np.ndarray, form: str, options: RegionOptions) -> list[WrittenRegion]:
    """The regions of one label's mask, largest first; none for an empty mask.

    Args:
        mask: bool (H, W) of the image's own upright size: the editor silently shows nothing of a mask of another size.
        form: of the control, such as ``"brushlabels"`` or ``"polygon"``.
    """
    mask = calmed(np.asarray(mask, dtype=bool))
    if not mask.any():
        return []
    whole = options.per == "class" and not form.startswith("polygon")
    written = []
    for part in [mask] if whole else _objects(mask, options.most):
        value = _value(part, form, options)
        if value is not None:
            written.append(WrittenRegion(part, value))
    return written


def entries(
    region: WrittenRegion, control: Control, label: str, name: str, score: float, item: int | None = None
) -> list[dict[str, Any]]:
    """A region as it stands in a prediction's ``result``: one entry, or for a pair of tags two of one id.

    Args:
        name: the region's id.
        item: place of the picture in its tag's list, None where the tag shows one picture.
    """
    height, width = region.mask.shape
    base: dict[str, Any] = {
        "id": name,
        "from_name": control.name,
        "to_name": control.to_name,
        "type": control.form,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": score,
    }
    if item is not None:
        base["item_index"] = item
    if not control.labels_name:
        return [base | {"value": {**region.value, control.form: [label]}}]
    # As the editor submits a pair: the drawing without a label, and its twin with it.
    twin = {"from_name": control.labels_name, "type": "labels", "value": {**region.value, "labels": [label]}}
    return [base | {"value": dict(region.value)}, base | twin]


def _objects(mask: np.ndarray, most: int) -> list[np.ndarray]:
    """The largest connected objects, largest first."""
    labels, count = components(mask)
    order = np.argsort(-sizes(labels, count), kind="stable")[:most]
    return [labels == number + 1 for number in order]


def _value(mask: np.ndarray, form: str, options: RegionOptions) -> dict[str, Any] | None:
    if form.startswith("polygon"):
        return polygon.write(mask, options.points)
    return bitmask.write(mask) if form.startswith("bitmask") else brush.write(mask)
