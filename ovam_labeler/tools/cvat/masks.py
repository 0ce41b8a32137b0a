"""CVAT's masks: run lengths of the bounding box, then the box.

``[n0, n1, n2, ..., left, top, right, bottom]``: lengths of runs of the box's pixels, row by row, outside and inside in
turn and beginning outside (0 where the first pixel is inside); the box's corners belong to it.  ``cvat_sdk.masks`` is
the judge of this in the tests; a worker that learns needs no SDK.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovam_labeler.errors import BadMaskError


def encode(mask: np.ndarray) -> list[int]:
    """The numbers of a bool (H, W) mask.  Raises BadMaskError: it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise BadMaskError("An empty mask cannot be written.")
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
    flat = mask[top : bottom + 1, left : right + 1].ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], starts, [len(flat)]))).tolist()
    return [*([0] if flat[0] else []), *runs, left, top, right, bottom]


def decode(points: Sequence[float], height: int, width: int) -> np.ndarray:
    """bool (height, width).

    Raises:
        BadMaskError: too few numbers, no whole ones, a box beyond the picture, or runs that do not fill it.
    """
    try:
        numbers = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadMaskError("The mask's points must be numbers.") from error
    if numbers.ndim != 1 or len(numbers) < 5 or not np.isfinite(numbers).all() or (numbers % 1 != 0).any():
        raise BadMaskError("The mask's points must be five or more whole numbers: run lengths, then the box.")
    runs = numbers[:-4]
    left, top, right, bottom = numbers[-4:]
    if not (0 <= left <= right < width and 0 <= top <= bottom < height):
        raise BadMaskError(
            f"The mask's box {left:.0f}, {top:.0f}, {right:.0f}, {bottom:.0f} does not lie in the picture of {width}x{height}."
        )
    shape = (int(bottom - top) + 1, int(right - left) + 1)
    if (runs < 0).any() or runs.sum() != shape[0] * shape[1]:
        raise BadMaskError(f"The mask's run lengths do not add up to its box of {shape[1]}x{shape[0]} pixels.")
    mask = np.zeros((height, width), dtype=bool)
    inside = np.arange(len(runs)) % 2 == 1
    box = np.repeat(inside, runs.astype(np.int64)).reshape(shape)
    mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = box
    return mask
