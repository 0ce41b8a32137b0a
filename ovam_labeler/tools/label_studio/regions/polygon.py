"""Polygon regions: one closed line, in percent of the picture's width and height.

The editor fills by the non-zero rule (a canvas' default), and so does this reader: what an annotator saw filled is read
as filled.  A polygon of Label Studio cannot have holes, so a hole is written as a cut: the line runs in to the hole,
round it the other way, and back out over the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.label_studio.regions.contours import joined, rings, simplified

#: Most points that are read.
MAX_POINTS = 10_000

#: Holes smaller than this share of their object are filled: a cut to each would spend the points of the outline.
MIN_HOLE = 0.005

_CROSSINGS = 1 << 20


def read(value: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """bool (height, width): pixels whose centre lies inside.

    Raises:
        BadMaskError: fewer than three points, more than 10,000, or no finite numbers.
    """
    points = value["points"]
    if isinstance(points, list) and len(points) > MAX_POINTS:
        raise BadMaskError(f"The region's polygon has {len(points)} points; at most {MAX_POINTS} are read.")
    try:
        corners = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadMaskError("The region's polygon points must be pairs of numbers.") from error
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise BadMaskError("The region's polygon needs at least three points of two finite numbers.")
    return filled(np.clip(corners, -100.0, 200.0) * (width / 100.0, height / 100.0), height, width)


def write(mask: np.ndarray, most: int) -> dict[str, Any] | None:
    """Value of a region, without its labels; None for an empty mask.

    Args:
        mask: bool (H, W), one connected object.
        most: points at most, cuts to holes included.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    outer, *holes = rings(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    holes = [hole for hole in holes if hole[1] >= MIN_HOLE * outer[1]]
    line = joined(simplified([outer[0], *(hole[0] for hole in holes)], most))
    percent = np.round((line + (left, top)) * (100.0 / width, 100.0 / height), 4)
    return {"points": percent.tolist(), "closed": True}


def filled(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool (height, width): pixels whose centre the closed line winds round.

    Args:
        corners: (n, 2) float, x and y in pixels; pixel (0, 0) reaches from 0 to 1.
    """
    mask = np.zeros((height, width), dtype=bool)
    top, bottom = (int(v) for v in np.clip((corners[:, 1].min(), corners[:, 1].max() + 1), 0, height))
    if top >= bottom:
        return mask
    start, end = corners, np.roll(corners, -1, axis=0)
    # A horizontal scan line through the pixel centres of each row; an edge owns its upper end, so that corners count once.
    first = np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5).clip(top, bottom).astype(np.int64)
    after = np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5).clip(top, bottom).astype(np.int64)
    winding = np.zeros((bottom - top, width + 1), dtype=np.int16)
    turn = np.where(end[:, 1] > start[:, 1], 1, -1).astype(np.int16)
    counts = after - first
    edges = np.flatnonzero(counts > 0)
    for part in np.array_split(edges, max(1, int(counts.sum()) // _CROSSINGS + 1)):
        if not len(part):
            continue
        edge = np.repeat(part, counts[part])
        offset = np.arange(len(edge)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        row = first[edge] + offset
        slope = (row + 0.5 - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
        x = start[edge, 0] + slope * (end[edge, 0] - start[edge, 0])
        column = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
        np.add.at(winding, (row - top, column), turn[edge])
    np.cumsum(winding, axis=1, out=winding, dtype=np.int16)
    mask[top:bottom] = winding[:, :width] != 0
    return mask
