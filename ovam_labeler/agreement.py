"""Do corrections of a class show the same thing?  Each one's token is asked for on the others' pictures.

IoU of masks says little about that: a token of one design often lights up only a part of another, and a picture on which even
its own token does badly looks like a contradiction.  What tells a mask of something else is *what else* the others' tokens find in
its picture: where that looks more like what the others marked than the mask does, the object that should have been marked is there.
Where they find nothing better, the mask is only of another design.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from backends.contract import Attributor, Capture, ClassQuery, LogitSource, MaskMethod, RegionSource
from ovam_labeler.contradiction import Agreement

#: A mask's height is this quantile of the values in it (parts of an object do not look like the class), and the picture's is
#: that one of the values outside (a few pixels are always high).
INSIDE, OUTSIDE = 0.70, 0.98

#: What a token finds outside a mask is this part of the picture.  Of .015 to .06 none was measurably better than another.
FOUND = 0.04

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


def agreement(
    attributor: Attributor,
    method: MaskMethod,
    pictures: Sequence[tuple[Capture, np.ndarray, np.ndarray]],
    tokens: Sequence[ClassQuery],
) -> Agreement:
    """How n corrections agree; from a backend that does not compare regions (:class:`backends.contract.RegionSource`), likeness is 0.

    Args:
        pictures: capture, target and weight of each correction, as for :func:`margin`.
        tokens: learned from each alone, in the same order.
    """
    count = len(pictures)
    margins, spreads = np.zeros((count, count)), np.zeros(count)
    marked, found = [], []
    for i, (capture, target, weight) in enumerate(pictures):
        maps = _values(attributor, method, capture, tokens, (target.shape[0], target.shape[1]))
        for j, values in enumerate(maps):
            margins[i, j] = margin(values, target, weight)
            if i == j:
                spreads[j] = values.std()
        if isinstance(attributor, RegionSource):
            inside = (target >= 0.5) & (weight > 0)
            vectors = attributor.regions(capture, np.stack([inside, *(_elsewhere(m, target, weight) for m in maps)]))
            marked.append(vectors[0])
            found.append(vectors[1:])
    own = np.maximum(np.diag(margins), np.maximum(_LEAST_SPREAD * spreads, 1e-9))
    kept = np.clip(margins / own, -1, 1)
    if not marked:
        return Agreement(kept, np.zeros((count, count)), np.zeros((count, count, count)))
    masks = np.stack(marked)
    return Agreement(kept, masks @ masks.T, np.stack(found) @ masks.T)


def _elsewhere(values: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Bool (h, w): the :data:`FOUND` part of a picture that a token's values are highest in, outside the mask."""
    outside = (weight > 0) & (target < 0.5)
    count = min(round(FOUND * values.size), int(outside.sum()))
    if count < 1:
        return np.zeros(values.shape, dtype=bool)
    least = np.partition(values[outside], -count)[-count]
    return outside & (values >= least)


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
