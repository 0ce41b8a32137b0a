"""Inner loop of Eq. 5 for one layer: softmax over the tokens, summed over steps and heads.

Everything is streamed over the steps and, where the softmax has many tokens, over sets, so that the largest temporary
has a fixed bound.  Half-precision queries are converted step by step and never kept.
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from backends.attention.queries import Layer

#: Most elements of a temporary (heads x pixels x tokens): 64 MiB in float32.
_MOST = 1 << 24


class _SigmoidSums(torch.autograd.Function):
    """sum over steps and heads of sigmoid(k Q^T), with the analytic gradient.

    Autograd would keep each converted step of the queries alive; this keeps only the sigmoids (d_head times smaller).
    """

    @staticmethod
    def forward(layer: Layer, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """keys (heads, S, d) -> sums (S, P) and the sigmoids, for the backward."""
        sigmoids = torch.stack([torch.sigmoid(_logits(step, keys)) for step in layer.plain_steps(keys.dtype)])
        weights = torch.tensor(layer.weights(), device=keys.device, dtype=keys.dtype)
        return torch.einsum("thsp,t->sp", sigmoids, weights), sigmoids

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.layer = inputs[0]
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad: torch.Tensor, _: torch.Tensor) -> tuple[None, torch.Tensor]:  # type: ignore[no-untyped-def]
        (sigmoids,) = ctx.saved_tensors
        layer: Layer = ctx.layer
        total = grad.new_zeros(layer.heads, grad.shape[0], layer.head_size)
        for step, s, weight in zip(layer.plain_steps(grad.dtype), sigmoids, layer.weights(), strict=True):
            total += weight * torch.matmul(grad * s * (1 - s), step)
        return None, total


def softmax_sums(layer: Layer, keys: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """Attention sums of one layer.

    Args:
        layer: its queries, computed or stored.
        keys: (heads, d, S, n) scaled keys of S token sets with n tokens each.
        mix: (S, n, K): K output maps a set as weighted sums of its n token maps.

    Returns:
        (S, K, P): sum over heads and kept steps, these weighed by what they stand for, in the dtype of ``keys``.
    """
    heads, _, sets, n = keys.shape
    width = max(1, _MOST // max(1, heads * layer.pixels * n))
    keys = keys.permute(0, 2, 3, 1)
    one = _two_tokens if n == 2 else _many_tokens
    parts = [one(layer, keys[:, a : a + width], mix[a : a + width]) for a in range(0, sets, width)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def linear_sums(layer: Layer, keys: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """As :func:`softmax_sums` without the softmax: sums of logits.  Steps fold before the one product."""
    folded = torch.zeros(layer.heads, layer.pixels, layer.head_size, device=keys.device, dtype=keys.dtype)
    for step, weight in zip(layer.plain_steps(keys.dtype), layer.weights(), strict=True):
        folded += weight * step
    return torch.einsum("hpd,hdsn,snk->skp", folded, keys, mix)


def _logits(step: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """(heads, P, d) queries and (heads, m, d) keys -> (heads, m, P).

    Pixels come last: a softmax over a handful of tokens is vectorised along them, eight times faster than the other way round.
    """
    return torch.matmul(keys, step.transpose(1, 2))


def _two_tokens(layer: Layer, keys: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """softmax over {0, 1} is the sigmoid of the logit difference: maps (1 - s, s), mixed.  keys (heads, S, 2, d)."""
    delta = (keys[:, :, 1] - keys[:, :, 0]).contiguous()
    if torch.is_grad_enabled() and delta.requires_grad:
        sums = _SigmoidSums.apply(layer, delta)[0]
    else:
        sums = delta.new_zeros(delta.shape[1], layer.pixels)
        for step, weight in zip(layer.plain_steps(delta.dtype), layer.weights(), strict=True):
            sums += weight * torch.sigmoid(_logits(step, delta)).sum(0)
    first, second = mix[:, 0, :, None], mix[:, 1, :, None]
    return first * (layer.steps * layer.heads) + (second - first) * sums[:, None, :]


def _many_tokens(layer: Layer, keys: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """As :func:`softmax_sums`, keys (heads, S, n, d)."""
    heads, sets, n, _ = keys.shape
    flat = keys.flatten(1, 2)
    mixing = mix.transpose(1, 2)

    def one(step: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        attention = _logits(step, flat).view(heads, sets, n, -1).softmax(2).sum(0)
        return torch.matmul(mixing, attention)

    # With gradients, a step's softmax is computed again in the backward instead of being kept for all steps.
    again = torch.is_grad_enabled() and keys.requires_grad and layer.steps > 1
    total = torch.zeros(sets, mix.shape[2], layer.pixels, device=keys.device, dtype=keys.dtype)
    for step, weight in zip(layer.plain_steps(keys.dtype), layer.weights(), strict=True):
        total = total + weight * (checkpoint(one, step, flat, use_reentrant=False) if again else one(step, flat))
    return total
