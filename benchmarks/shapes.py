"""Structured synthetic queries at Stable Diffusion 1.5's shapes, and a mask that some token of theirs explains."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle

#: (grid side, heads, head size, layers): the cross-attention layers of the down and up blocks at 512 x 512 pixels.
SHAPES = ((64, 8, 40, 5), (32, 8, 80, 5), (16, 8, 160, 5))
WIDTH = 768
#: Independent noise of a step beside the fields that all steps share.
_NOISE = 0.1


def synthetic(steps: int, seed: int = 0) -> tuple[QueryBundle, dict[str, KeyProjection]]:
    """Smooth random fields that change slowly over the steps, with noise of their own in each step."""
    generator = torch.Generator().manual_seed(seed)
    layers, projections = [], {}
    for side, heads, size, count in SHAPES:
        for k in range(count):
            fields = []
            for _ in range(2):
                coarse = torch.randn(1, heads * size, 8, 8, generator=generator)
                field = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
                fields.append(field.reshape(heads, size, -1).transpose(1, 2))
            queries = torch.empty(steps, heads, side * side, size)
            for step in range(steps):
                turn = 0.8 * step / max(1, steps - 1)
                torch.randn(queries[step].shape, generator=generator, out=queries[step]).mul_(_NOISE)
                queries[step] += np.cos(turn) * fields[0] + np.sin(turn) * fields[1]
            name = f"grid{side}.layer{k}"
            layers.append(LayerQueries(name, heads, side, side, size**-0.5, queries))
            weight = torch.randn(heads * size, WIDTH, generator=generator) * (2.0 / WIDTH**0.5)
            projections[name] = KeyProjection(name, weight, heads, size**-0.5)
    return QueryBundle(tuple(layers)), projections


def words(count: int) -> torch.Tensor:
    """(count, 2, 768) token pairs."""
    return torch.randn(count, 2, WIDTH, generator=torch.Generator().manual_seed(1))


def mask() -> np.ndarray:
    """(512, 512) float32, an ellipse and a bar."""
    y, x = np.mgrid[:512, :512] / 512.0
    inside = ((x - 0.4) / 0.22) ** 2 + ((y - 0.55) / 0.3) ** 2 < 1
    return (inside | ((np.abs(x - 0.75) < 0.06) & (y > 0.3))).astype(np.float32)
