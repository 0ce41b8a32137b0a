"""Muon over processes: orthogonalised momentum for matrices, the work shared out and summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import distributed


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix, in bf16; of one matrix or a stack (..., m, n)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a UNet's parameter is for :class:`Muon`: not a vector, nor at the ends or of the time embedding."""
    return parameter.dim() > 1 and not any(part in name for part in ("conv_in", "conv_out", "time_emb"))


class Muon:
    """``step`` uses the (already averaged) gradients; momenta stay equal on all processes."""

    def __init__(self, parameters: Sequence[nn.Parameter], rank: int, world: int, momentum: float = 0.95) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.momentum = momentum
        self.buffers = [torch.zeros_like(p) for p in self.parameters]
        cost = [p.numel() * min(p.shape[0], p[0].numel()) for p in self.parameters]
        load, self.mine = [0] * world, set()
        for i in sorted(range(len(cost)), key=lambda i: -cost[i]):
            target = load.index(min(load))
            load[target] += cost[i]
            if target == rank:
                self.mine.add(i)
        self.shapes: dict[tuple[int, int], list[int]] = {}
        for i in sorted(self.mine):
            p = self.parameters[i]
            self.shapes.setdefault((p.shape[0], p[0].numel()), []).append(i)

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.01, scale: float = 2.0) -> None:
        """Orthogonalise my share, sum over processes, move."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        torch._foreach_mul_(self.buffers, self.momentum)
        torch._foreach_add_(self.buffers, gradients)
        updates = torch._foreach_mul(self.buffers, self.momentum)
        torch._foreach_add_(updates, gradients)
        moves = [torch.zeros(0)] * len(updates)
        for (rows, columns), members in self.shapes.items():  # one product for all matrices of a shape
            stack = torch.stack([updates[i].reshape(rows, columns) for i in members])
            for i, move in zip(members, orthogonalise(stack) * 0.2 * max(rows, columns) ** 0.5, strict=True):
                moves[i] = move.reshape(-1)
        flat = torch.cat(
            [
                m if i in self.mine else u.new_zeros(u.numel())
                for i, (m, u) in enumerate(zip(moves, updates, strict=True))
            ]
        )
        distributed.add_up(flat)
        pieces = flat.split([p.numel() for p in self.parameters])
        torch._foreach_mul_(self.parameters, 1 - rate * decay)
        torch._foreach_add_(
            self.parameters,
            [m.view(p.shape) for m, p in zip(pieces, self.parameters, strict=True)],
            alpha=-rate * scale,
        )
