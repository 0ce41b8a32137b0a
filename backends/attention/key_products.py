"""Products of one embedding with the key projections of all layers (Eq. 4), and of keys' gradients with their transposes.

A two-token fit takes one of each an iteration.  At Stable Diffusion 1.5's size they read more bytes than a pass over a cache
of a few steps does, so they have kernels of their own, chosen as those of :mod:`backends.attention.passes` are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from backends.attention.passes import Kernel, compiled
from backends.attention.queries import KeyProjection


class KeyProducts(Protocol):
    """Of the projections it was made for; lists come in that order."""

    def keys(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        """(E,) -> scaled keys of each layer, (heads, d_head)."""

    def pulled(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """The gradient with respect to the embedding, (E,), from those with respect to each layer's keys, (heads, d_head)."""


class TorchKeys:
    """Works on any device and dtype."""

    def __init__(self, projections: Sequence[KeyProjection]) -> None:
        self._projections = list(projections)

    def keys(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        return [p.keys(embedding) for p in self._projections]

    def pulled(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        parts = [
            (g.flatten() @ p.weight.to(g.device)) * p.scale for g, p in zip(gradients, self._projections, strict=True)
        ]
        return torch.stack(parts).sum(0)


def key_products(
    projections: Sequence[KeyProjection], device: torch.device | str = "cpu", kernel: Kernel = "auto"
) -> KeyProducts:
    """The fastest products for embeddings on this device; ``kernel`` as of :func:`backends.attention.passes.passes_over`."""
    fits = torch.device(device).type == "cpu" and all(
        p.weight.device.type == "cpu" and p.weight.dtype == torch.float32 and p.weight.is_contiguous()
        for p in projections
    )
    if fits and (module := compiled(kernel)) is not None:
        products: KeyProducts = module.NumbaKeys(projections)
        return products
    return TorchKeys(projections)
