"""What parts of a picture look like to the model: their mean queries, against those of the rest of the picture.

Learned tokens say where a class may be, one-sidedly: a token fits what it was learned from, and how far it carries to another
design is not known.  The queries of two regions can be compared directly, whichever of them a token was learned from.
"""

from __future__ import annotations

import numpy as np
import torch

from backends.attention.queries import QueryBundle
from backends.contract import BackendError


def region_vectors(bundle: QueryBundle, regions: np.ndarray) -> np.ndarray:
    """(n, D) float32, of length 1, so that the product of two is their likeness, -1..1; 0 for a region that is empty or everything.

    Each layer's part is the mean query in the region less the mean query of the rest, over all steps, heads side by side, scaled to
    the same length: the likeness is the mean of the layers' cosines.  The rest is taken away because what all of a picture shares
    says nothing of the region.

    Args:
        regions: (n, height, width) float or bool, share of each pixel that is in the region, 0..1; any size.

    Raises:
        BackendError: the regions have another shape, or values that are not in 0..1.
    """
    if regions.ndim != 3 or not regions.size:
        raise BackendError(f"The regions have shape {regions.shape}; (n, height, width), all at least 1, is needed.")
    share = torch.from_numpy(np.array(regions, dtype=np.float32))
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise BackendError("The regions have values outside 0..1.")
    parts = []
    for layer in bundle.layers:
        cells = torch.nn.functional.adaptive_avg_pool2d(share[:, None], (layer.height, layer.width)).flatten(1)
        cells = cells.to(layer.device)
        total = cells.sum(1, keepdim=True)
        rest = cells.shape[1] - total
        weights = cells / total.clamp_min(1e-6) - (1 - cells) / rest.clamp_min(1e-6)
        weights = torch.where((total > 0) & (rest > 1e-6), weights, 0.0)
        steps = [
            often * torch.einsum("np,hpd->nhd", weights, queries).flatten(1)
            for often, queries in zip(layer.weights(), layer.plain_steps(), strict=True)
        ]
        parts.append(torch.nn.functional.normalize(torch.stack(steps).sum(0)))
    return (torch.cat(parts, 1) / len(parts) ** 0.5).cpu().numpy()
