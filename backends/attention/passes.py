"""Passes over the stored queries of an image: the four sums that maps and token optimization are made of (Eq. 3-5).

Two tokens compete through one logit, their keys' difference times the query; its sigmoid is the softmax.  A pass reads every
query once, converts a few blocks at a time and keeps nothing but its result.  Two kernels do the same: torch, always there
and on every device, and numba where it is installed and the queries lie in the host's memory.  They agree within 1e-6 of the
largest sum.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, Protocol

import torch

from backends.attention.passes_torch import TorchPasses
from backends.attention.stored import StoredQueries

log = logging.getLogger(__name__)

Kernel = Literal["auto", "torch", "numba"]


class Passes(Protocol):
    """Passes over the layers it was made for.  Layers come as lists in that order; shapes are of one layer.

    N is the layer's steps x pixel blocks, B its pixel blocks; padded pixels hold no meaning.
    """

    def project(self, keys: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Keys (heads, d_head) -> logits (N, heads, 64) float32."""

    def squash(
        self, logits: Sequence[torch.Tensor], direction: Sequence[torch.Tensor] | None = None, length: float = 0.0
    ) -> list[torch.Tensor]:
        """Sums over steps (weighed) and heads of sigmoid(logits + length * direction): (B, 64)."""

    def pull(self, logits: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Gradient of sum(gradients (B, 64) * squash(logits)) with respect to the keys: (heads, d_head)."""

    def class_sums(self, keys: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Keys (heads, d_head, S) of S classes -> their :meth:`squash` sums (S, B, 64), nothing larger in between."""


def passes_over(layers: Sequence[StoredQueries], kernel: Kernel = "auto") -> Passes:
    """The fastest passes for these layers.

    Args:
        kernel: ``"auto"`` reads OVAM_KERNEL (``auto``, ``torch`` or ``numba``) and takes numba where it can.
    """
    fits = all(y.device.type == "cpu" and y.blocks.dtype in _COMPILED for y in layers)
    if fits and (module := compiled(kernel)) is not None:
        passes: Passes = module.NumbaPasses(layers)
        return passes
    return TorchPasses(layers)


def compiled(kernel: Kernel = "auto") -> Any:
    """The module of compiled kernels, or None where torch is wanted or nothing else is there."""
    return None if (_wanted() if kernel == "auto" else kernel) == "torch" else _numba()


_COMPILED = (torch.int8, torch.float16, torch.bfloat16, torch.float32)


def _wanted() -> Kernel:
    found = os.environ.get("OVAM_KERNEL", "auto")
    return "torch" if found == "torch" else "numba" if found == "numba" else "auto"


@cache
def _numba() -> Any:
    """The compiled kernels, or None where numba is not installed or does not work here."""
    try:
        from backends.attention import passes_numba
    except ImportError as error:
        log.debug("Compiled kernels are not used: %s", error)
        return None
    return passes_numba


def kernel_name() -> str:
    """Which kernel ``"auto"`` takes on the CPU: for reports."""
    return "torch" if compiled() is None else "numba"
