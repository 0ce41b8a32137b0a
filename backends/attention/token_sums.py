"""Softmax over the tokens, summed over steps and heads (inner sums of Eq. 5), for all layers of an image in one pass.

Sets of two tokens take the sigmoid of one logit difference and go through :mod:`backends.attention.passes`; larger sets are
streamed in tiles here.  The largest temporary has a fixed bound: it grows neither with the steps nor with the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from backends.attention.passes import passes_over
from backends.attention.passes_torch import TorchPasses
from backends.attention.stored import BLOCK, StoredQueries

#: Token sets of two that share one pass: their sums are 4 MB for a grid of 64 x 64.
_PAIRS = 256
#: Most numbers of a temporary (pixels x heads x tokens) of larger sets: 16 MiB in float32.
_MOST = 1 << 22


def softmax_sums(
    layers: Sequence[StoredQueries], keys: Sequence[torch.Tensor], mix: torch.Tensor
) -> list[torch.Tensor]:
    """Attention sums of all layers.

    Args:
        layers: queries.
        keys: of each layer (heads, d_head, S, n), scaled, of S token sets with n tokens each; of two :func:`pair_sums` takes less.
        mix: (S, n, K): K output maps a set as weighted sums of its n token maps.

    Returns:
        Of each layer (S, K, pixels): sum over heads and kept steps, these weighed by what they stand for.
    """
    return [_many_tokens(layer, k.permute(0, 2, 3, 1), mix) for layer, k in zip(layers, keys, strict=True)]


def linear_sums(layers: Sequence[StoredQueries], keys: Sequence[torch.Tensor], mix: torch.Tensor) -> list[torch.Tensor]:
    """As :func:`softmax_sums` without the softmax: sums of logits.  Steps fold before the one product."""
    found = []
    for layer, k in zip(layers, keys, strict=True):
        folded = torch.zeros(layer.blocks.shape[1:], device=k.device, dtype=k.dtype)
        for step, weight in enumerate(layer.weights()):
            numbers = layer.blocks[step].to(k.dtype)
            if layer.scales is not None:
                numbers *= layer.scales[step, :, :, None].to(k.dtype)
            folded.add_(numbers, alpha=weight)
        mixed = torch.einsum("hdsn,snk->hdsk", k, mix).flatten(2)
        sums = torch.einsum("bhdp,hdm->mbp", folded, mixed).flatten(1)[:, : layer.pixels]
        found.append(sums.view(mix.shape[0], mix.shape[2], -1))
    return found


class _PairSums(torch.autograd.Function):
    """Sums of sigmoids of one set's logits, with the analytic gradient; the logits are kept, never converted queries."""

    @staticmethod
    def forward(layers: Sequence[StoredQueries], *keys: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """keys (heads, d_head) of each layer -> sums (pixels) of each layer, then the logits for the backward."""
        passes = passes_over(layers, "torch" if keys[0].dtype == torch.float64 else "auto")
        logits = passes.project(keys)
        sums = [s.flatten()[: y.pixels] for s, y in zip(passes.squash(logits), layers, strict=True)]
        return *sums, *logits

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.layers = inputs[0]
        logits = output[len(inputs) - 1 :]
        ctx.save_for_backward(*logits)
        ctx.mark_non_differentiable(*logits)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layers, logits = ctx.layers, ctx.saved_tensors
        padded = []
        for layer, gradient in zip(layers, gradients, strict=False):
            full = gradient.new_zeros(layer.blocks.shape[1] * BLOCK)
            full[: layer.pixels] = gradient
            padded.append(full.view(-1, BLOCK))
        passes = passes_over(layers, "torch" if padded[0].dtype == torch.float64 else "auto")
        return None, *passes.pull(logits, padded)


def pair_sums(layers: Sequence[StoredQueries], deltas: Sequence[torch.Tensor], mix: torch.Tensor) -> list[torch.Tensor]:
    """As :func:`softmax_sums` for sets of two tokens: the softmax is the sigmoid s of the logit difference, the maps are (1 - s, s).

    Args:
        deltas: of each layer (heads, d_head, S), scaled keys of the second token less those of the first.
    """
    sets = mix.shape[0]
    if torch.is_grad_enabled() and deltas[0].requires_grad:
        alone = [_PairSums.apply(layers, *(d[:, :, s] for d in deltas))[: len(layers)] for s in range(sets)]
        sums = [torch.stack([one[k] for one in alone]) for k in range(len(layers))]
    else:
        passes = passes_over(layers, "torch" if deltas[0].dtype == torch.float64 else "auto")
        parts = [passes.class_sums([d[:, :, a : a + _PAIRS].detach() for d in deltas]) for a in range(0, sets, _PAIRS)]
        joined = parts[0] if len(parts) == 1 else [torch.cat(of_layer) for of_layer in zip(*parts, strict=True)]
        sums = [s.flatten(1)[:, : layer.pixels] for s, layer in zip(joined, layers, strict=True)]
    first, second = mix[:, 0, :, None], mix[:, 1, :, None]
    return [
        first * (layer.steps * layer.heads) + (second - first) * s[:, None]
        for layer, s in zip(layers, sums, strict=True)
    ]


def _many_tokens(layer: StoredQueries, keys: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """keys (heads, S, n, d_head) -> (S, K, pixels)."""
    heads, sets, n, size = keys.shape
    width = max(1, _MOST // (heads * BLOCK * n))
    parts = [_some_sets(layer, keys[:, a : a + width], mix[a : a + width]) for a in range(0, sets, width)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _some_sets(layer: StoredQueries, keys: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    heads, sets, n, size = keys.shape
    blocks = layer.blocks.shape[1]
    tiles = TorchPasses([layer], most=max(1, _MOST // max(1, sets * n)) * size)
    weights = torch.tensor(layer.weights(), device=keys.device, dtype=keys.dtype)
    mixing = mix.transpose(1, 2)

    def one(tile: torch.Tensor, scaled: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = torch.matmul(scaled, tile).to(keys.dtype)
        attention = logits.view(len(tile), heads, sets, n, BLOCK).softmax(3).sum(1)
        return torch.matmul(mixing, attention) * weight

    # With gradients, a tile's softmax is computed again in the backward instead of being kept for all steps.
    again = torch.is_grad_enabled() and keys.requires_grad
    total = torch.zeros(blocks, sets, mix.shape[2], BLOCK, device=keys.device, dtype=keys.dtype)
    for first, last, tile, scaled in tiles.tiles(layer, keys.flatten(1, 2), keys.dtype):
        item = torch.arange(first, last, device=keys.device)
        weight = weights[item // blocks, None, None, None]
        found = checkpoint(one, tile, scaled, weight, use_reentrant=False) if again else one(tile, scaled, weight)
        total = total.index_add(0, item % blocks, found)
    return total.permute(1, 2, 0, 3).flatten(2)[:, :, : layer.pixels]
