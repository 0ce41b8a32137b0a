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
from ovam_labeler.masks.contours import filled, one_line

#: Most points that are read.
MAX_POINTS = 10_000


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
    if not mask.any():
        return None
    percent = np.round(one_line(mask, most) * (100.0 / width, 100.0 / height), 4)
    return {"points": percent.tolist(), "closed": True}
