"""Self-attention maps, Eq. 8 of the paper (section 3.4): the attention each pixel *receives*.

A row of softmax(Q K^T) adds up to 1, so adding over the keys gives the same number for every pixel and a min-max of it
stretches rounding noise.  The information is in the columns: add over the *queries*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backends.attention.heatmaps import resize_maps
from backends.contract import BackendError

PREFIX = "self_attention."
LAYOUT_KEY = "self_attention"

#: The paper's alpha (section 4.1): for maps of words, and of optimised tokens.
ALPHA_WORDS = 0.85
ALPHA_TOKENS = 0.95

#: Most elements of a temporary: 64 MiB in float32.
_MOST = 1 << 24
#: A map whose spread is below this share of its largest value is rounding noise and counts as constant.
_FLAT = 1e-6


def received_attention(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention each pixel receives in one self-attention layer at one step.

    Args:
        queries, keys: (heads, P, d), any floating dtype.
        scale: of the logits, 1 / sqrt(d).

    Returns:
        (P,) float32: sum over heads and over all P queries of softmax(Q K^T scale).  Its total is heads x P.

    Raises:
        BackendError: shapes that do not fit.
    """
    if queries.ndim != 3 or queries.shape != keys.shape:
        raise BackendError(
            f"Self-attention queries {tuple(queries.shape)} and keys {tuple(keys.shape)} must both be (heads, P, d)."
        )
    heads, pixels, _ = queries.shape
    total = torch.zeros(pixels, device=queries.device)
    columns = keys.float().transpose(1, 2) * scale
    rows = max(1, _MOST // max(1, heads * pixels))
    for first in range(0, pixels, rows):
        logits = torch.matmul(queries[:, first : first + rows].float(), columns)
        total += logits.softmax(-1).sum((0, 1))
    return total


@dataclass(frozen=True, slots=True)
class ReceivedMaps:
    """Received attention of one image, added over layers, heads and steps, by latent down-sampling factor.

    Attributes:
        maps: factor (1 = the latent grid) -> (height, width) float tensor.
    """

    maps: Mapping[int, torch.Tensor]

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors by name for ``Capture.tensors``."""
        return {f"{PREFIX}{factor}": tensor.contiguous() for factor, tensor in self.maps.items()}

    def layout(self) -> dict[str, Any]:
        """JSON-serialisable part of ``CaptureInfo.layout``."""
        return {LAYOUT_KEY: sorted(self.maps)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], layout: Mapping[str, Any]) -> ReceivedMaps:
        """Inverse of the two methods above.

        Raises:
            BackendError: the capture holds no self-attention, or a tensor is missing.
        """
        factors = layout.get(LAYOUT_KEY)
        if not factors:
            raise BackendError(
                "The capture holds no self-attention; read the image again with Needs(self_attention=(1,))."
            )
        missing = [f for f in factors if f"{PREFIX}{f}" not in tensors]
        if missing:
            raise BackendError(
                f"The capture lacks its self-attention map at factor {missing[0]}; read the image again."
            )
        return cls({int(f): tensors[f"{PREFIX}{f}"] for f in factors})

    def finest(self) -> torch.Tensor:
        """(height, width) at the smallest factor: the paper takes the highest resolution only."""
        return self.maps[min(self.maps)]


def normalised(received: torch.Tensor, alpha: float) -> torch.Tensor:
    """Eq. 8's norm_[alpha, 1]: min-max to alpha..1.  A constant map says nothing and becomes all ones.

    Args:
        received: (height, width).
        alpha: 0..1; the nearer to 1, the less self-attention changes a heat map.

    Raises:
        BackendError: alpha outside 0..1, or NaN or infinite values in the map.
    """
    if not 0 <= alpha <= 1:
        raise BackendError(f"alpha is {alpha}; 0..1 is allowed.")
    received = received.float()
    if not bool(torch.isfinite(received).all()):
        raise BackendError("The self-attention map contains NaN or infinite values; read the image again.")
    low, high = received.min(), received.max()
    if float(high - low) <= _FLAT * float(received.abs().max()):
        return torch.ones_like(received)
    return alpha + (1 - alpha) * (received - low) / (high - low)


def weigh(maps: torch.Tensor, received: torch.Tensor, alpha: float) -> torch.Tensor:
    """A_alpha * D of Eq. 9.

    Args:
        maps: (classes, height, width) heat maps.
        received: (h, w) of Eq. 8 before normalisation; resized where its grid differs.

    Returns:
        As ``maps``; a map in 0..1 stays in 0..1.
    """
    factor = normalised(received, alpha)[None].to(maps.device)
    return maps * resize_maps(factor, (maps.shape[-2], maps.shape[-1]))
