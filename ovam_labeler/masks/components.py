"""Connected objects of a mask, and what makes a mask calm: no specks, no ragged border.

numpy alone: run lengths of the rows are joined, so the cost grows with the runs and not with the pixels.
"""

from __future__ import annotations

import numpy as np

#: Objects and holes below this share of the picture are specks (10 x 10 pixels of 2048 x 2048).
SPECK = 2.5e-5

#: Share of the shorter side that the border is smoothed over, on either side.
CALM = 1 / 256

#: A smoothed mask must agree with what it was made of by this IoU; fine structures are left as they are.
FAITHFUL = 0.9


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the objects of a mask; pixels that touch at a corner only are apart.

    Args:
        mask: bool (H, W).

    Returns:
        (int32 (H, W): 0 outside, 1..count in the order of their first pixel; count).
    """
    height, width = mask.shape
    if not mask.any():
        return np.zeros((height, width), np.int32), 0
    # Rows are parted by a background column, so that no run crosses a row.
    flat = np.pad(mask.astype(bool), ((0, 0), (1, 1))).ravel()
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    start, end = change[0::2], change[1::2]
    stride = width + 2
    # Runs below each run: the first that ends behind its start, up to those that begin before its end.
    low = np.searchsorted(end, start + stride, side="right")
    high = np.searchsorted(start, end + stride, side="left")
    count = np.maximum(high - low, 0)
    upper = np.repeat(np.arange(len(start)), count)
    lower = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    roots = _joined(len(start), upper, lower)
    names, number = np.unique(roots, return_inverse=True)
    paint = np.zeros(height * stride + 1, np.int32)
    paint[start] = number + 1
    np.subtract.at(paint, end, number.astype(np.int32) + 1)
    return np.cumsum(paint, dtype=np.int32)[:-1].reshape(height, stride)[:, 1:-1], len(names)


def sizes(labels: np.ndarray, count: int) -> np.ndarray:
    """Pixels of the objects 1..count."""
    return np.bincount(labels.ravel(), minlength=count + 1)[1:]


def calmed(mask: np.ndarray) -> np.ndarray:
    """A mask whose run lengths stay short: border smoothed, specks and pinholes gone.

    The border follows the majority within a square of 1/128 of the shorter side, far below a cell of any map.  Never
    empty where the mask is not; left as it is where the object is too fine for smoothing.
    """
    if not mask.any():
        return mask
    radius = round(CALM * min(mask.shape))
    while radius:
        smooth = _majority(mask, radius)
        if (smooth & mask).sum() >= FAITHFUL * (smooth | mask).sum():
            mask = smooth
            break
        radius //= 2
    least = SPECK * mask.size
    return ~_without_specks(~_without_specks(mask, least, keep_largest=True), least, keep_largest=True)


def _joined(runs: int, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The least run that each run hangs together with."""
    root = np.arange(runs)
    while True:
        least = np.minimum(root[upper], root[lower])
        new = root.copy()
        np.minimum.at(new, root[upper], least)
        np.minimum.at(new, root[lower], least)
        while not np.array_equal(new, shorter := new[new]):
            new = shorter
        if np.array_equal(new, root):
            return root
        root = new


def _without_specks(mask: np.ndarray, least: float, *, keep_largest: bool) -> np.ndarray:
    if least <= 1:
        return mask
    labels, count = components(mask)
    if count < 2:
        return mask
    area = sizes(labels, count)
    keep = area >= least
    keep[int(area.argmax())] |= keep_largest
    return np.concatenate(([False], keep))[labels]


def _majority(mask: np.ndarray, radius: int) -> np.ndarray:
    """Pixels in whose square of 2 radius + 1 the mask has the majority; beyond the picture nothing is counted."""
    total: np.ndarray = mask.astype(np.int32)
    room: np.ndarray = np.ones((1, 1), np.int64)
    for axis in (0, 1):
        length = mask.shape[axis]
        sums = np.zeros([length + 1 if a == axis else n for a, n in enumerate(total.shape)], np.int32)
        np.cumsum(total, axis=axis, out=sums[1:] if axis == 0 else sums[:, 1:])
        at = np.arange(length)
        high, low = np.minimum(at + radius + 1, length), np.maximum(at - radius, 0)
        total = sums.take(high, axis=axis) - sums.take(low, axis=axis)
        room = room * np.expand_dims(high - low, 1 - axis)
    return 2 * total > room
