"""Structured synthetic queries at Stable Diffusion 1.5's shapes, and a mask that some token of theirs explains."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle

#: (grid side, heads, head size, layers): the cross-attention layers of the down and up blocks at 512 x 512 pixels.
SHAPES = ((64, 8, 40, 5), (32, 8, 80, 5), (16, 8, 160, 5))
WIDTH = 768
#: Fields that all heads see alike.  Spread of their part of a query, of a head's own part, of independent noise of a step.
_SHARED, _ALIKE, _OWN, _NOISE = 12, 1.0, 0.5, 0.1
#: How far a head's own fields turn into others over the steps, in radians.
_TURN = 0.8


def synthetic(steps: int, seed: int = 0) -> tuple[QueryBundle, dict[str, KeyProjection]]:
    """Queries made of what all heads see alike, of what a head sees alone, which turns slowly over the steps, and of noise.

    What is seen alike are ``_SHARED`` fields over the picture, the first of them :func:`mask`.  Each has a direction in the
    embedding space that every layer's keys and queries know, as training makes them: a token along it lights up its field
    in all heads, so that some token explains the mask and 500 epochs of the paper's optimiser come near it.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = _smooth(_SHARED, 64, generator)
    seen[0] = F.interpolate(torch.from_numpy(mask())[None, None] * 2 - 1, (64, 64), mode="area")[0, 0]
    seen /= seen.flatten(1).std(1)[:, None, None]
    directions = torch.randn(WIDTH, _SHARED, generator=generator)
    layers, projections = [], {}
    for side, heads, size, count in SHAPES:
        alike = F.interpolate(seen[None], (side, side), mode="area")[0].flatten(1)
        for k in range(count):
            weight = torch.randn(heads * size, WIDTH, generator=generator) / WIDTH**0.5
            shared = (weight @ directions @ alike) * (_ALIKE / _SHARED**0.5)
            shared, *own = (
                field.reshape(heads, size, -1).transpose(1, 2)
                for field in (shared, *(_OWN * _smooth(heads * size, side, generator) for _ in range(2)))
            )
            queries = torch.empty(steps, heads, side * side, size)
            for step in range(steps):
                turn = _TURN * step / max(1, steps - 1)
                torch.randn(queries[step].shape, generator=generator, out=queries[step]).mul_(_NOISE)
                queries[step] += shared + np.cos(turn) * own[0] + np.sin(turn) * own[1]
            name = f"grid{side}.layer{k}"
            layers.append(LayerQueries(name, heads, side, side, size**-0.5, queries))
            projections[name] = KeyProjection(name, weight, heads, size**-0.5)
    return QueryBundle(tuple(layers)), projections


def _smooth(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """(count, side, side) random fields of unit spread that vary over an eighth of the side."""
    coarse = torch.randn(1, count, 8, 8, generator=generator)
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)[0]


def words(count: int) -> torch.Tensor:
    """(count, 2, 768) token pairs."""
    return torch.randn(count, 2, WIDTH, generator=torch.Generator().manual_seed(1))


def mask() -> np.ndarray:
    """(512, 512) float32, an ellipse and a bar."""
    y, x = np.mgrid[:512, :512] / 512.0
    inside = ((x - 0.4) / 0.22) ** 2 + ((y - 0.55) / 0.3) ** 2 < 1
    return (inside | ((np.abs(x - 0.75) < 0.06) & (y > 0.3))).astype(np.float32)
