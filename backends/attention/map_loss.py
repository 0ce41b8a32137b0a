"""Loss of a two-token fit and its gradient with respect to each layer's sums, without autograd (Eq. 5, 7).

Bilinear resizing is separable and linear: a small matrix for the rows and one for the columns, whose transposes carry the
gradient back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

from backends.attention.fit_loss import PreparedExample
from backends.attention.stored import BLOCK, StoredQueries

#: Probabilities below are counted as this: the loss stays finite, and so does its gradient (torch cuts off both as well).
_LEAST, _LEAST_SLOPE = 1e-38, 1e-12


@lru_cache(maxsize=64)
def resize_matrix(source: int, target: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(target, source) float32: bilinear resizing of one axis, align_corners=False."""
    one = torch.eye(source, device=device)
    if source == target:
        return one
    return F.interpolate(one[None], size=target, mode="linear", align_corners=False)[0].T.contiguous()


class MapLoss:
    """Weighted cross-entropy of one example's mean map against its mask, as :func:`fit_loss.bce_loss` defines it."""

    def __init__(self, example: PreparedExample, layers: Sequence[StoredQueries]) -> None:
        """Args: layers whose sums are handed in, in this order; their steps may be fewer than the example's."""
        self._target, self._weight = example.target[0].contiguous(), example.weight[0].contiguous()
        self._at = (self._target.shape[0], self._target.shape[1])
        # A mask of zeros and ones needs one logarithm a pixel: of p where it is 1, of 1 - p where it is 0.
        binary = bool(((self._target == 0) | (self._target == 1)).all())
        self._turn, self._offset = 2 * self._target - 1, 1 - self._target
        self._sign = -self._turn * self._weight if binary else None
        self._layers = list(layers)
        self._size = example.bundle.size
        self._grids = sorted({(y.height, y.width) for y in layers})

    def map(self, sums: Sequence[torch.Tensor]) -> torch.Tensor:
        """(h, w) mean map of the object from each layer's (B, 64) sums."""
        by_grid: dict[tuple[int, int], torch.Tensor] = {}
        for layer, total in zip(self._layers, sums, strict=True):
            grid = (layer.height, layer.width)
            mean = total.flatten()[: layer.pixels].view(grid) / (layer.steps * layer.heads * len(self._layers))
            by_grid[grid] = by_grid[grid] + mean if grid in by_grid else mean
        return sum_of([_resized(mean, self._size) for mean in by_grid.values()])

    def value(self, sums: Sequence[torch.Tensor]) -> float:
        """The loss alone."""
        return self._loss(self._right(_resized(self.map(sums), self._at)))

    def value_and_gradient(self, sums: Sequence[torch.Tensor]) -> tuple[float, list[torch.Tensor], torch.Tensor]:
        """The loss, its gradient with respect to each layer's (B, 64) sums, and the (h, w) map."""
        found = self.map(sums)
        p = _resized(found, self._at)
        if self._sign is None:
            p.clamp_(0, 1)
            slope = (p - self._target).mul_(self._weight).div_((p * (1 - p)).clamp_(min=_LEAST_SLOPE))
            value = self._loss(p)
        else:
            right = self._right(p)
            value = self._loss(right)
            slope = self._sign / right.clamp_(min=_LEAST_SLOPE)
        at_map = _pulled(slope, self._size)
        by_grid = {grid: _pulled(at_map, grid) for grid in self._grids}
        gradients = []
        for layer in self._layers:
            full = slope.new_zeros(layer.blocks.shape[1] * BLOCK)
            full[: layer.pixels] = by_grid[(layer.height, layer.width)].flatten()
            full /= layer.steps * layer.heads * len(self._layers)
            gradients.append(full.view(-1, BLOCK))
        return value, gradients, found

    def _right(self, p: torch.Tensor) -> torch.Tensor:
        """Probability of what the mask says where it says 0 or 1; else the object's probability."""
        return p.clamp_(0, 1) if self._sign is None else torch.addcmul(self._offset, self._turn, p)

    def _loss(self, p: torch.Tensor) -> float:
        if self._sign is not None:
            return -float(torch.dot(p.clamp_(min=_LEAST).log().flatten(), self._weight.flatten()))
        inside = p.clamp(min=_LEAST).log_()
        outside = (1 - p).clamp_(min=_LEAST).log_()
        # y log p + (1 - y) log(1 - p) = log(1 - p) + y (log p - log(1 - p))
        inside.sub_(outside).mul_(self._target).add_(outside)
        return -float(torch.dot(inside.flatten(), self._weight.flatten()))


def sum_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = tensors[0]
    for other in tensors[1:]:
        total = total + other
    return total


def _resized(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(h, w) -> size; always new memory."""
    if tuple(values.shape) == tuple(size):
        return values.clone()
    rows = resize_matrix(values.shape[0], size[0], values.device)
    columns = resize_matrix(values.shape[1], size[1], values.device)
    return rows @ values @ columns.T


def _pulled(gradient: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The transpose of :func:`_resized` from ``size``."""
    if tuple(gradient.shape) == tuple(size):
        return gradient
    rows = resize_matrix(size[0], gradient.shape[0], gradient.device)
    columns = resize_matrix(size[1], gradient.shape[1], gradient.device)
    return rows.T @ gradient @ columns
