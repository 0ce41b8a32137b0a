"""Muon over processes: orthogonalised momentum for matrices, the work shared out and summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import distributed


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix, in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).float()


class Muon:
    """``step`` uses the (already averaged) gradients; momenta stay equal on all processes."""

    def __init__(self, parameters: Sequence[nn.Parameter], rank: int, world: int, momentum: float = 0.95) -> None:
        self.parameters, self.momentum = list(parameters), momentum
        self.buffers = [torch.zeros_like(p) for p in self.parameters]
        cost = [p.numel() * min(p.shape[0], p[0].numel()) for p in self.parameters]
        load, self.mine = [0] * world, set()
        for i in sorted(range(len(cost)), key=lambda i: -cost[i]):
            target = load.index(min(load))
            load[target] += cost[i]
            if target == rank:
                self.mine.add(i)

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.01, scale: float = 2.0) -> None:
        """Orthogonalise my share, sum over processes, move."""
        moves = []
        for i, (p, buffer) in enumerate(zip(self.parameters, self.buffers, strict=True)):
            gradient = p.grad if p.grad is not None else torch.zeros_like(p)
            buffer.mul_(self.momentum).add_(gradient)
            if i in self.mine:
                update = (gradient + self.momentum * buffer).reshape(p.shape[0], -1)
                moves.append((orthogonalise(update) * 0.2 * max(update.shape) ** 0.5).reshape(-1))
            else:
                moves.append(torch.zeros(p.numel(), device=p.device))
        flat, offset = torch.cat(moves), 0
        distributed.add_up(flat)
        for p in self.parameters:
            p.mul_(1 - rate * decay).add_(flat[offset : offset + p.numel()].view(p.shape), alpha=-rate * scale)
            offset += p.numel()
