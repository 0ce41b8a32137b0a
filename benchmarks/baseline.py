"""The paper's formula in plain torch float32, as lean as it can be written without changing it.

One batched product a layer on the queries as they lie (no copy of them), softmax, sum over steps and heads, bilinear
resize, sum over layers; autograd for the epochs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle

#: What the paper's public code takes, in times of streaming its fp32 queries twice; no baseline may be slower than STRAW.
PUBLIC, STRAW = 5.3, 6.0


def plain_maps(bundle: QueryBundle, projections: dict[str, KeyProjection], tokens: torch.Tensor) -> torch.Tensor:
    """Eq. 5 as it is written: (n, E) -> (n, H, W), mean over steps, heads and layers."""
    total: torch.Tensor | float = 0.0
    for layer in bundle.layers:
        assert isinstance(layer, LayerQueries)
        weight = projections[layer.name].weight
        keys = (tokens @ weight.T).reshape(len(tokens), layer.heads, -1).permute(1, 0, 2) * layer.scale
        # (heads, n, d) x (steps, heads, d, pixels): the large operand is read as it lies, pixels last for the softmax.
        attention = torch.matmul(keys, layer.queries.transpose(2, 3)).softmax(2).sum((0, 1))
        grid = attention.reshape(1, len(tokens), layer.height, layer.width) / (layer.steps * layer.heads)
        total = total + F.interpolate(grid, bundle.size, mode="bilinear", align_corners=False)[0]
    assert isinstance(total, torch.Tensor)
    return total / len(bundle.layers)


def epochs(
    bundle: QueryBundle, projections: dict[str, KeyProjection], start: torch.Tensor, truth: torch.Tensor, count: int
) -> Callable[[], None]:
    """``count`` epochs of A.1: SGD on the cross-entropy of both channels, (2, H, W) truth."""

    def run() -> None:
        tokens = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([tokens], lr=100.0)
        for _ in range(count):
            maps = F.interpolate(plain_maps(bundle, projections, tokens)[None], truth.shape[1:], mode="bilinear")[0]
            loss = F.binary_cross_entropy(maps.clamp(0, 1), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run
