"""Timing of ratios in one run: the best of several repeats, so that what else runs on the machine counts least."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

#: "wall" for a machine of one's own; "cpu" (with one thread) counts the seconds this process was given, where others work.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_clock = time.perf_counter


def use_clock(name: str) -> None:
    global _clock
    _clock = CLOCKS[name]


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Least time of ``work`` after one run that warms up."""
    work()
    return min(once(work) for _ in range(repeats))


def side_by_side(one: Callable[[], object], other: Callable[[], object], repeats: int = 7) -> tuple[float, float]:
    """Least times of two works that are compared, by turns: what the machine gives changes within minutes."""
    one()
    other()
    pairs = [(once(one), once(other)) for _ in range(repeats)]
    return min(a for a, _ in pairs), min(b for _, b in pairs)


def once(work: Callable[[], object]) -> float:
    """Time of ``work``, what it started on a GPU included."""
    _wait()
    start = _clock()
    work()
    _wait()
    return _clock() - start


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def stream(tensors: Sequence[torch.Tensor], repeats: int = 7) -> float:
    """Seconds of reading every byte once: sums as 64-bit integers, the fastest reading loop that torch has."""
    flat = [t.reshape(-1).view(torch.int64) for t in tensors]
    return seconds(lambda: [t.sum() for t in flat], repeats)
