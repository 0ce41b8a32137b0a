"""Truth rules: what a human's regions say of one label, pixel by pixel.  Pure functions on boolean arrays.

A label's target is the union of its regions whatever their origin.  Other labels' regions are certain background.  The
rest is background only where the annotation is exhaustive (the default for a label that was corrected in the task).  A
ring along the mask's border counts for nothing: a hand-drawn border is not exact, and neither is a map cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ovam_labeler.domain import Truth
from ovam_labeler.errors import BadMaskError

#: Width of the ignored border ring on either side of the border, as a part of the image's shorter side.
RING = 0.01

#: The ring is narrowed until at least this part of the object, and of the background, is left outside it.
KEEP = 0.5


def build_truths(
    size: tuple[int, int],
    regions: Iterable[tuple[str, np.ndarray]],
    taught: Sequence[str],
    *,
    exhaustive: bool | None = None,
    ring: float = RING,
) -> list[Truth]:
    """Truths of the labels a correction teaches, in the order of ``taught``.

    Args:
        size: (height, width) of the upright image in pixels.
        regions: (label, bool (H, W) mask) of *every* region left in the annotation, accepted and edited ones alike.
        taught: labels of which any region was drawn, edited or deleted.  One without a pixel left is a negative.
        exhaustive: ``None`` or True = pixels of no region are background of a taught label; False = they are unknown.
        ring: width of the ignored ring, as a part of the shorter side, on either side of the border.

    Raises:
        BadMaskError: a region's mask has another size than the image.
    """
    unions: dict[str, np.ndarray] = {}
    for label, mask in regions:
        if mask.shape != tuple(size):
            raise BadMaskError(
                f"The mask of label '{label}' is {mask.shape[1]}x{mask.shape[0]} pixels; the image has {size[1]}x{size[0]}."
            )
        union = unions.setdefault(label, np.zeros(size, dtype=bool))
        union |= mask.astype(bool, copy=False)
    width = round(ring * min(size))
    truths = []
    for label in dict.fromkeys(taught):
        mask = unions.get(label, np.zeros(size, dtype=bool))
        if not mask.any():
            truths.append(Truth(label, "negative", mask, np.zeros(size, dtype=bool)))
            continue
        ignore = border_ring(mask, width)
        if exhaustive is False:
            known = mask.copy()
            for other in unions.values():
                known |= other
            ignore |= ~known
        truths.append(Truth(label, "positive", mask, ignore))
    return truths


def border_ring(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels within ``width`` (Chebyshev distance) of the mask's border, on both sides; bool (H, W).

    The image's edge is no border.  The ring is narrowed, down to nothing, until half of the object and half of the
    background remain, so a mask of five pixels keeps them all.
    """
    inside, outside = int(mask.sum()), int((~mask).sum())
    while width > 0 and inside and outside:
        eroded = ~dilate(~mask, width)
        dilated = dilate(mask, width)
        if eroded.sum() >= KEEP * inside and (~dilated).sum() >= KEEP * outside:
            return dilated & ~eroded
        width //= 2
    return np.zeros_like(mask, dtype=bool)


def dilate(mask: np.ndarray, width: int) -> np.ndarray:
    """Dilation by a (2 width + 1) square: two running sums, so its cost does not grow with the width."""
    for axis in (0, 1):
        length = mask.shape[axis]
        total = np.zeros([length + 1 if a == axis else n for a, n in enumerate(mask.shape)], dtype=np.int32)
        np.cumsum(mask, axis=axis, out=total[1:] if axis == 0 else total[:, 1:])
        at = np.arange(length)
        upper = total.take(np.minimum(at + width + 1, length), axis=axis)
        lower = total.take(np.maximum(at - width, 0), axis=axis)
        mask = upper > lower
    return mask
