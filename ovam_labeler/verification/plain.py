"""Eq. 5 as the paper writes it, in float32 and without any of the engine's means: what its maps are checked against."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from backends.attention.queries import KeyProjection, QueryBundle
from backends.contract import ClassQuery


def plain_map(bundle: QueryBundle, projections: Mapping[str, KeyProjection], query: ClassQuery) -> torch.Tensor:
    """Heat map of one class: (height, width) float32.

    Softmax over the tokens of X' at every step, head and pixel; the mean over steps, heads and layers, each layer brought
    to the largest grid; the mean over the class's columns and token sets.  Reads the queries as they are stored.
    """
    maps = []
    for tokens in query:
        layers = []
        for layer in bundle.layers:
            projection = projections[layer.name]
            weight = projection.weight.to(layer.device, torch.float32)
            keys = (tokens.embeddings.to(layer.device, torch.float32) @ weight.T).reshape(
                len(tokens.embeddings), projection.heads, -1
            )
            total = torch.zeros(layer.height * layer.width, device=layer.device)
            counts = layer.weights()
            for count, queries in zip(counts, layer.plain_steps(), strict=True):
                logits = torch.einsum("hpd,nhd->hpn", queries, keys) * projection.scale
                attention = logits.softmax(-1)[:, :, list(tokens.columns)]
                total += attention.mean((0, 2)) * (count / sum(counts))
            grid = total.reshape(1, 1, layer.height, layer.width)
            layers.append(F.interpolate(grid, bundle.size, mode="bilinear", align_corners=False)[0, 0])
        maps.append(torch.stack(layers).mean(0))
    return torch.stack(maps).mean(0)
