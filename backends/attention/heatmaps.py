"""Open-vocabulary attention maps, Eq. 5 of the paper (section 3.2), for one prompt or for many classes in one pass.

Queries are streamed from their stored form in one pass for all tokens of all classes, so memory does not grow with steps
or classes.  A set of two tokens takes the sigmoid of one logit difference, which is the same number as the softmax over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from backends.attention.queries import KeyProjection, QueryBundle
from backends.attention.token_sums import linear_sums, pair_sums, softmax_sums
from backends.contract import BackendError, ClassQuery

#: Key projections by layer name.
Projections = Mapping[str, KeyProjection]
Reduce = Literal["sum", "mean"]
Activation = Literal["softmax", "linear"]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How Eq. 5 adds up: over steps and heads of a layer, and over layers after the resize.

    The paper sums everything.  The mean keeps maps in 0..1 whatever the number of steps, which thresholds, presence and
    the loss need; with layers of equal step and head counts the two differ by one constant factor.
    """

    steps: Reduce = "mean"
    heads: Reduce = "mean"
    layers: Reduce = "mean"


MEAN = Aggregation()
SUM = Aggregation("sum", "sum", "sum")


def heat_maps(
    bundle: QueryBundle,
    projections: Projections,
    embeddings: torch.Tensor,
    *,
    aggregation: Aggregation = MEAN,
    activation: Activation = "softmax",
) -> torch.Tensor:
    """Maps of all tokens of one X' (Eq. 5).

    Args:
        bundle: queries of one image.
        projections: by layer name; every layer of ``bundle`` needs one.
        embeddings: (n, E), n >= 2 under the softmax.  Gradients flow to them.
        aggregation: sums or means.
        activation: ``"softmax"`` over the n tokens, or ``"linear"``: the bare logits, which are no probabilities.

    Returns:
        (n, height, width) on the largest layer's grid, float32 (float64 for float64 embeddings); in 0..1 for means
        under the softmax.

    Raises:
        BackendError: wrong shapes, NaN or infinite embeddings, a layer without a projection.
    """
    checked = _checked(embeddings, bundle, projections, least=2 if activation == "softmax" else 1)
    mix = torch.eye(checked.shape[0], device=checked.device, dtype=checked.dtype)
    return _aggregate(bundle, projections, checked[None], mix[None], aggregation, activation)[0]


def class_maps(
    bundle: QueryBundle,
    projections: Projections,
    queries: Sequence[ClassQuery],
    *,
    aggregation: Aggregation = MEAN,
) -> torch.Tensor:
    """Maps of all classes in one pass over the queries.

    A class map is the mean over the class's token sets of the mean map of each set's ``columns``.  A class computed alone
    and among others gives the same map: softmaxes never cross a token set.

    Returns:
        (classes, height, width), as :func:`heat_maps`; gradients flow to the sets' embeddings.

    Raises:
        BackendError: as :func:`heat_maps`; a class without sets; a column outside its set.
    """
    height, width = bundle.size
    groups: dict[int, list[tuple[int, torch.Tensor, torch.Tensor]]] = {}
    for index, query in enumerate(queries):
        if not query:
            raise BackendError(f"Class {index} has no token set; at least one is needed.")
        for tokens in query:
            checked = _checked(tokens.embeddings, bundle, projections, least=2)
            n = checked.shape[0]
            if not tokens.columns or any(not 0 <= c < n for c in tokens.columns):
                raise BackendError(
                    f"Columns {tokens.columns} of class {index} must name at least one of rows 0..{n - 1}."
                )
            mix = torch.zeros(n, 1, device=checked.device, dtype=checked.dtype)
            mix[list(tokens.columns)] = 1.0 / (len(tokens.columns) * len(query))
            groups.setdefault(n, []).append((index, checked, mix))
    maps = torch.zeros(len(queries), height, width, device=bundle.device)
    for members in groups.values():
        embeddings = torch.stack([m[1] for m in members])
        mixes = torch.stack([m[2] for m in members])
        owners = torch.tensor([m[0] for m in members], device=bundle.device)
        found = _aggregate(bundle, projections, embeddings, mixes, aggregation, "softmax")[:, 0]
        maps = maps.to(found.dtype).index_add(0, owners, found)
    return maps


def layer_heat_maps(
    bundle: QueryBundle,
    projections: Projections,
    embeddings: torch.Tensor,
    *,
    aggregation: Aggregation = MEAN,
) -> dict[str, torch.Tensor]:
    """Maps of each layer at its own resolution before the resize: name -> (n, height, width).  For ablations."""
    return {
        layer.name: heat_maps(QueryBundle((layer,)), projections, embeddings, aggregation=aggregation)
        for layer in bundle.layers
    }


def resize_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear resize (align_corners=False, as Eq. 5 and A.1 use it) of (n, h, w) maps to (n, height, width)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def _checked(embeddings: torch.Tensor, bundle: QueryBundle, projections: Projections, *, least: int) -> torch.Tensor:
    """Embeddings on the bundle's device in a computing dtype, or a sentence about what is wrong with them."""
    if embeddings.ndim != 2 or embeddings.shape[0] < least:
        raise BackendError(f"Token embeddings have shape {tuple(embeddings.shape)}; (n >= {least}, E) is needed.")
    for layer in bundle.layers:
        projection = projections.get(layer.name)
        if projection is None:
            raise BackendError(f"Layer {layer.name!r} was recorded, but this model has no key projection of that name.")
        if projection.embedding_size != embeddings.shape[1]:
            raise BackendError(
                f"Token embeddings are {embeddings.shape[1]} wide; this model's are {projection.embedding_size}."
            )
        if projection.heads != layer.heads or projection.weight.shape[0] != layer.heads * layer.head_size:
            raise BackendError(f"Layer {layer.name!r} was recorded by another model: heads or head size differ.")
    if not bool(torch.isfinite(embeddings.detach()).all()):
        raise BackendError("The token embedding contains NaN or infinite values; learn or import the token again.")
    dtype = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
    return embeddings.to(device=bundle.device, dtype=dtype)


def _aggregate(
    bundle: QueryBundle,
    projections: Projections,
    embeddings: torch.Tensor,
    mix: torch.Tensor,
    aggregation: Aggregation,
    activation: Activation,
) -> torch.Tensor:
    """Eq. 5 for (S, n, E) embeddings in S softmaxes; ``mix`` (S, n, K) adds token maps to K maps a set: (S, K, H, W)."""
    size = bundle.size
    layers = bundle.blocks()
    if activation == "softmax" and embeddings.shape[1] == 2:
        deltas = embeddings[:, 1] - embeddings[:, 0]  # half as many products with the projections
        totals = pair_sums(layers, [projections[y.name].keys(deltas) for y in layers], mix)
    else:
        sums = softmax_sums if activation == "softmax" else linear_sums
        totals = sums(layers, [projections[y.name].keys(embeddings) for y in layers], mix)
    by_grid: dict[tuple[int, int], torch.Tensor] = {}
    for layer, total in zip(layers, totals, strict=True):
        count = (layer.steps if aggregation.steps == "mean" else 1) * (
            layer.heads if aggregation.heads == "mean" else 1
        )
        found = total / count
        grid = (layer.height, layer.width)
        # Resizing is linear: layers of one grid are added first and resized once.
        by_grid[grid] = by_grid[grid] + found if grid in by_grid else found
    resized = [resize_maps(f.reshape(-1, *grid), size) for grid, f in by_grid.items()]
    maps = torch.stack(resized).sum(0) / (len(bundle.layers) if aggregation.layers == "mean" else 1)
    return maps.reshape(embeddings.shape[0], mix.shape[2], *size)
