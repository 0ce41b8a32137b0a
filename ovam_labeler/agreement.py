"""Do corrections of a class show the same thing?  Each one's token is asked for on the others' pictures.

IoU of masks says little about that: a token of one design often lights up only a part of another, and a picture on which even
its own token does badly looks like a contradiction.  What tells a mask of something else is where a token puts its *highest*
values: inside the human's mask, or, in a picture that was marked wrongly, on the object that should have been marked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from backends.contract import Attributor, Capture, ClassQuery, LogitSource, MaskMethod

#: A mask's height is this quantile of the values in it (parts of an object do not look like the class), and the picture's is
#: that one of the values outside (a few pixels are always high).
INSIDE, OUTSIDE = 0.70, 0.98

#: A token that does not separate its own mask by this part of its values' spread is read as if it did.
_LEAST_SPREAD = 0.1


def margin(values: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    """How far a token's values in the mask are above the highest outside, in the values' own unit.

    Args:
        values: (h, w) float.
        target: (h, w) share of each pixel that is the class, 0..1.
        weight: (h, w), 0 where nothing is known.

    Returns:
        0.0 where nothing is known to be inside, or nothing to be outside.
    """
    known = weight > 0
    inside, outside = values[known & (target >= 0.5)], values[known & (target < 0.5)]
    if not inside.size or not outside.size:
        return 0.0
    return float(np.quantile(inside, INSIDE) - np.quantile(outside, OUTSIDE))


def kept_margins(
    attributor: Attributor,
    method: MaskMethod,
    pictures: Sequence[tuple[Capture, np.ndarray, np.ndarray]],
    tokens: Sequence[ClassQuery],
) -> np.ndarray:
    """(n, n) float in -1..1, row i, column j: how much of the margin it has on its own picture token j keeps on picture i.

    1: the mask of i stands out as its own does.  0: no more than the rest of the picture.  -1: the rest stands out instead.

    Args:
        pictures: capture, target and weight of each correction, as for :func:`margin`.
        tokens: learned from each alone, in the same order.
    """
    count = len(pictures)
    margins, spreads = np.zeros((count, count)), np.zeros(count)
    for i, (capture, target, weight) in enumerate(pictures):
        for j, values in enumerate(_values(attributor, method, capture, tokens, (target.shape[0], target.shape[1]))):
            margins[i, j] = margin(values, target, weight)
            if i == j:
                spreads[j] = values.std()
    own = np.maximum(np.diag(margins), np.maximum(_LEAST_SPREAD * spreads, 1e-9))
    return np.clip(margins / own, -1, 1)


def _values(
    attributor: Attributor, method: MaskMethod, capture: Capture, tokens: Sequence[ClassQuery], size: tuple[int, int]
) -> np.ndarray:
    """(n, height, width): logits over the background, which do not saturate; the method's maps where a backend has none."""
    with torch.no_grad():
        if isinstance(attributor, LogitSource):
            found = attributor.logits(capture, tokens)
        else:
            found = torch.cat([method.maps(attributor, capture, [token]) for token in tokens])
        found = torch.nn.functional.interpolate(found[None].float().cpu(), size=size, mode="bilinear")[0]
    return found.numpy()
