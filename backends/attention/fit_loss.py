"""Targets of a token optimization brought to the loss's resolution, and its loss (Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from backends.attention.heatmaps import resize_maps
from backends.attention.queries import QueryBundle
from backends.contract import BackendError

#: Longest side of the loss's grid; the paper's masks are 512 x 512 (A.1).
MAX_SIDE = 512


@dataclass(frozen=True, slots=True)
class FitExample:
    """One annotated image.

    Attributes:
        bundle: queries of the image.
        target: (H, W) float in 0..1, 1 = the class, any resolution; or (tokens, H, W) with a channel for each token, as
            in Eq. 7's general case.  With (H, W), the mean map of rows 1.. of X' is the object's.
        weight: (H, W) float >= 0; 0 = ignored.
    """

    bundle: QueryBundle
    target: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, slots=True)
class PreparedExample:
    """An example as the loss needs it.

    Attributes:
        bundle: queries in their stored form.
        target: (channels, h, w) float32 in 0..1: one channel (the object) or one for each token.
        weight: (channels, h, w) float32, adding up to 1 in each channel.
    """

    bundle: QueryBundle
    target: torch.Tensor
    weight: torch.Tensor

    def fit_to_target(self, maps: torch.Tensor) -> torch.Tensor:
        """(n, h, w) maps bilinearly on the target's grid."""
        return resize_maps(maps, (self.target.shape[1], self.target.shape[2]))

    def coarser(self, side: int) -> PreparedExample:
        """The same with whole blocks of pixels averaged by weight, at most ``side`` of them a side; itself where blocks do not fit."""
        height, width = self.target.shape[1:]
        block = -(-max(height, width) // side)
        if block == 1 or height % block or width % block:
            return self
        target, weight = _average(self.target, self.weight, (height // block, width // block))
        return replace(self, target=target, weight=weight * block**2)


def bce_loss(maps: torch.Tensor, example: PreparedExample) -> torch.Tensor:
    """Eq. 7: weighted binary cross-entropy, mean over pixels and over channels.

    The mean over channels, not Eq. 7's sum, is what the paper's learning rate belongs to.  Against a one-channel target the
    background's term equals the object's (the maps add up to 1), so the object's alone is the mean.
    """
    if example.target.shape[0] == 1:
        maps = maps[1:].mean(0, keepdim=True)
    # Rounding can lift a mean of probabilities past 1 by 1e-7, where the cross-entropy is undefined.
    bce = F.binary_cross_entropy(maps.clamp(0, 1), example.target, reduction="none")
    return (bce * example.weight).sum() / example.target.shape[0]


def prepare_examples(
    examples: Sequence[FitExample], *, tokens: int, at: Literal["target", "map"], balance: bool
) -> list[PreparedExample]:
    """Check all examples and bring targets and weights to the loss's grid.

    Raises:
        BackendError: see :func:`backends.attention.token_optimization.learn_token`.
    """
    if not examples:
        raise BackendError("Token optimization needs at least one annotated image; none was given.")
    prepared = []
    mass = 0.0
    for number, example in enumerate(examples, start=1):
        target, weight = _checked(example, number, tokens)
        objects = target if target.shape[0] == 1 else target[1:]
        mass += float((objects * weight).sum())
        grid = example.bundle.size if at == "map" else _bounded(target.shape[1], target.shape[2])
        target, weight = _average(target, weight, grid)
        prepared.append(
            PreparedExample(
                bundle=QueryBundle(tuple(example.bundle.blocks())),
                target=target.to(example.bundle.device),
                weight=_normalised(target, weight, balance).to(example.bundle.device),
            )
        )
    if mass <= 0:
        raise BackendError(
            "The mask marks no pixel of the object, so there is nothing to learn from; draw at least a few pixels, or add "
            "an image that shows the object."
        )
    return prepared


def _checked(example: FitExample, number: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(channels, H, W) target and (1, H, W) weight in float32."""
    target = torch.as_tensor(np.ascontiguousarray(example.target, dtype=np.float32))
    weight = torch.as_tensor(np.ascontiguousarray(example.weight, dtype=np.float32))
    if target.ndim == 2:
        target = target[None]
    elif target.ndim != 3 or target.shape[0] != tokens:
        raise BackendError(
            f"The target of example {number} has shape {tuple(example.target.shape)}; (H, W) or ({tokens}, H, W) is needed."
        )
    if weight.shape != target.shape[1:] or not weight.numel():
        raise BackendError(
            f"The weight of example {number} has shape {tuple(weight.shape)}; its target has {tuple(target.shape[1:])}."
        )
    if not (bool(torch.isfinite(target).all()) and float(target.min()) >= 0 and float(target.max()) <= 1):
        raise BackendError(f"The target of example {number} has values outside 0..1; 1 = the class, 0 = anything else.")
    if not (bool(torch.isfinite(weight).all()) and float(weight.min()) >= 0):
        raise BackendError(f"The weight of example {number} has negative or non-finite values; 0 or more is allowed.")
    if float(weight.max()) <= 0:
        raise BackendError(
            f"The weight of example {number} is zero everywhere, so every pixel is ignored; leave some pixels to learn from."
        )
    return target, weight[None]


def _bounded(height: int, width: int) -> tuple[int, int]:
    """The size, scaled down so that its longest side is at most ``MAX_SIDE``."""
    factor = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _average(target: torch.Tensor, weight: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted area average on a grid; a cell without weight gets target 0 and weight 0."""
    if tuple(target.shape[1:]) == size:
        return target, weight
    mean_weight = F.adaptive_avg_pool2d(weight[None], size)[0]
    mean_object = F.adaptive_avg_pool2d((target * weight)[None], size)[0]
    safe = mean_weight.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(mean_weight > 0, mean_object / safe, torch.zeros(())).clamp(0, 1), mean_weight


def _normalised(target: torch.Tensor, weight: torch.Tensor, balance: bool) -> torch.Tensor:
    """Weights adding up to 1 in each channel; balanced: half on object, half on background where both exist."""
    weight = weight.expand_as(target).double()
    if balance:
        on, off = (weight * target).sum((1, 2), keepdim=True), (weight * (1 - target)).sum((1, 2), keepdim=True)
        on_factor = torch.where(on > 0, 1 / on.clamp_min(1e-300), torch.zeros((), dtype=torch.float64))
        off_factor = torch.where(off > 0, 1 / off.clamp_min(1e-300), torch.zeros((), dtype=torch.float64))
        weight = weight * (target * on_factor + (1 - target) * off_factor)
    return (weight / weight.sum((1, 2), keepdim=True)).float()
