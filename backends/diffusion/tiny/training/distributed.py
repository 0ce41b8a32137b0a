"""Two processes of one thread each, their gradients averaged in one flat all-reduce; or one process on a GPU.

(Two OpenMP threads in one process collapse as soon as anything else runs on the machine.)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist


def start(module: str, arguments: Sequence[str], processes: int = 2) -> None:
    """Run ``module`` again as ``processes`` workers (torchrun) and wait; raises if one fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        "-m",
        module,
    ]
    subprocess.run([*command, *arguments], check=True, env=environment)


class Clock:
    """Minutes of training; a gap longer than ``most`` seconds between two looks (a stopped process) counts as ``most``."""

    def __init__(self, minutes: float, most: float = 10.0) -> None:
        self.seconds, self.most, self.last = minutes * 60, most, time.time()

    def minutes(self) -> float:
        now = time.time()
        self.seconds += min(self.most, now - self.last)
        self.last = now
        return self.seconds / 60


def is_worker() -> bool:
    """Whether this process was started by :func:`start`."""
    return "RANK" in os.environ


def join(device: str = "cpu") -> tuple[int, int]:
    """Join the group; returns (rank, number of processes). A GPU has one process and no group."""
    if device != "cpu" or not is_worker():
        return 0, 1
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(hours=4))  # a stopped process is waited for
    return dist.get_rank(), dist.get_world_size()


def add_up(tensor: torch.Tensor) -> None:
    """Sum over the processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def mean_of(value: float) -> float:
    """A number averaged over the processes."""
    tensor = torch.tensor(float(value), dtype=torch.float64)
    add_up(tensor)
    return float(tensor) / world()


def average_gradients(parameters: Sequence[torch.nn.Parameter], clip: float) -> torch.Tensor:
    """Average the gradients over the processes and clip their norm; returns the norm before, on the gradients' device."""
    gradients = []
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        gradients.append(p.grad)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    add_up(flat)
    flat /= world()
    norm = flat.norm()
    flat *= (clip / (norm + 1e-6)).clamp(max=1.0)
    pieces = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)])
    return norm
