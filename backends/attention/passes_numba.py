"""Passes over stored queries by compiled kernels; see :class:`backends.attention.passes.Passes`.

A pass is cut into as many ranges as threads are worth starting: one where a pass takes less than a thread's start, else
torch's own number of threads.  Each range sums into its own memory, so no two threads write to one place.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from backends.attention import kernels_numba as kernels
from backends.attention.queries import KeyProjection
from backends.attention.stored import BLOCK, StoredQueries

#: Bytes below which a pass stays in the calling thread (0.1 ms of work).
_ALONE = 2 << 20
#: What kernels take the bits of a half-precision number for.
_BITS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
Piece = TypeVar("Piece")
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    """One pool for the process; a forked child makes its own."""
    key = (os.getpid(), threads)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="ovam-pass")
    return _pools[key]


def _threads_for(size: int) -> int:
    """How many threads a pass over so many bytes is worth."""
    return max(1, torch.get_num_threads()) if size >= _ALONE else 1


def _spread(threads: int, work: Callable[[int], None]) -> None:
    """``work(0)`` to ``work(threads - 1)``, the first in the calling thread."""
    others = [_pool(threads).submit(work, part) for part in range(1, threads)]
    work(0)
    for other in others:
        other.result()


def _hand_out(threads: int, pieces: Iterable[Piece], work: Callable[[Piece], None]) -> None:
    """``work`` of every piece; each thread takes the next one as soon as it is free, so none waits for a slower core.

    Pieces write to places of their own: results do not hang on who takes which.
    """
    left = deque(pieces)

    def take(_: int) -> None:
        while True:
            try:
                piece = left.popleft()
            except IndexError:
                return
            work(piece)

    _spread(threads, take)


def _range(count: int, part: int, threads: int) -> tuple[int, int]:
    """Which of ``count`` items one thread's part is, first and last."""
    return count * part // threads, count * (part + 1) // threads


class _Layer:
    """A layer as flat arrays that share the stored memory."""

    def __init__(self, layer: StoredQueries) -> None:
        blocks = layer.blocks.contiguous().reshape(-1)
        bits = blocks.view(_BITS[blocks.dtype]) if blocks.dtype in _BITS else blocks
        self.queries = bits.numpy()
        self.steps, self.count = layer.steps, layer.blocks.shape[1]
        self.heads, self.channels = layer.heads, layer.head_size
        self.items = self.steps * self.count
        self.shape = (self.count, self.heads, self.channels)
        self.weights = np.array(layer.weights(), np.float32)
        size = (self.steps, self.heads, self.channels)
        self.scales = np.ones(size, np.float32) if layer.scales is None else layer.scales.contiguous().numpy()

    def keys(self, keys: torch.Tensor) -> np.ndarray:
        """(heads, d_head) keys with each step's scales, flat."""
        return np.asarray(self.scales * keys.detach().numpy()[None], np.float32).reshape(-1)

    def class_sums(self, keys: torch.Tensor) -> tuple[np.ndarray, Callable[[int, int], None]]:
        """Keys (heads, d_head, S) -> zeros (at least S, blocks, 64), and what adds the sums of blocks first..last to them."""
        classes, width = keys.shape[2], kernels.TILE
        tiles = -(-classes // width)
        padded = np.zeros((self.heads, self.channels, tiles * width), np.float32)
        padded[:, :, :classes] = keys.detach().numpy()
        flat = padded.reshape(self.heads, self.channels, tiles, width).transpose(0, 2, 1, 3).reshape(-1)
        sums = np.zeros((tiles * width, self.count, BLOCK), np.float32)

        def add(first: int, last: int) -> None:
            kernels.class_sums(self.queries, self.shape, self.scales, flat, tiles, self.weights, sums, first, last)

        return sums, add


class NumbaPasses:
    """For int8, float16, bfloat16 and float32 queries in the host's memory."""

    def __init__(self, layers: Sequence[StoredQueries]) -> None:
        self._layers = [_Layer(layer) for layer in layers]
        self._threads = _threads_for(sum(y.queries.nbytes for y in self._layers))

    def project(self, keys: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        scaled = [y.keys(k) for y, k in zip(self._layers, keys, strict=True)]
        out = [np.empty((y.items, y.heads, BLOCK), np.float32) for y in self._layers]

        def work(part: int) -> None:
            for y, k, z in zip(self._layers, scaled, out, strict=True):
                kernels.project(y.queries, y.shape, k, z, *_range(y.items, part, self._threads))

        _spread(self._threads, work)
        return [torch.from_numpy(z) for z in out]

    def squash(
        self, logits: Sequence[torch.Tensor], direction: Sequence[torch.Tensor] | None = None, length: float = 0.0
    ) -> list[torch.Tensor]:
        z = [x.numpy() for x in logits]
        d = z if direction is None else [x.numpy() for x in direction]
        sums = [np.zeros((self._threads, y.count, BLOCK), np.float32) for y in self._layers]
        far = np.float32(length if direction is not None else 0.0)

        def work(part: int) -> None:
            for k, y in enumerate(self._layers):
                kernels.squash(
                    z[k], d[k], far, y.shape, y.weights, sums[k][part], *_range(y.items, part, self._threads)
                )

        _spread(self._threads, work)
        return [torch.from_numpy(s.sum(0)) for s in sums]

    def pull(self, logits: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        z, g = [x.numpy() for x in logits], [np.ascontiguousarray(x.numpy(), np.float32) for x in gradients]
        out = [np.zeros((self._threads, y.heads, y.channels), np.float32) for y in self._layers]

        def work(part: int) -> None:
            for k, y in enumerate(self._layers):
                kernels.pull(
                    y.queries,
                    y.shape,
                    y.scales,
                    z[k],
                    g[k],
                    y.weights,
                    out[k][part],
                    *_range(y.items, part, self._threads),
                )

        _spread(self._threads, work)
        return [torch.from_numpy(o.sum(0)) for o in out]

    def class_sums(self, keys: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        sums, adding = zip(*(y.class_sums(k) for y, k in zip(self._layers, keys, strict=True)), strict=True)
        pieces = [
            (k, *_range(y.count, part, self._threads))
            for k, y in enumerate(self._layers)
            for part in range(self._threads)
        ]

        def work(piece: tuple[int, int, int]) -> None:
            k, first, last = piece
            if first < last:
                adding[k](first, last)

        _hand_out(self._threads, sorted(pieces, key=lambda piece: -self._layers[piece[0]].queries.size), work)
        return [torch.from_numpy(s[: k.shape[2]]) for s, k in zip(sums, keys, strict=True)]


class NumbaKeys:
    """Products with float32 key projections in the host's memory; see :class:`backends.attention.key_products.KeyProducts`.

    The projections of Stable Diffusion 1.5 are 34 MB, as much to read as a cache of a few steps: each product goes through
    all of them once, in the threads of the passes.  (BLAS brings threads of its own, which take the cores from these.)
    """

    def __init__(self, projections: Sequence[KeyProjection]) -> None:
        self._projections = list(projections)
        self._weights = [p.weight.detach().numpy() for p in projections]
        self._threads = _threads_for(sum(w.nbytes for w in self._weights))

    def keys(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        vector = np.ascontiguousarray(embedding.detach().numpy(), np.float32)
        out = [np.empty(len(w), np.float32) for w in self._weights]

        def work(part: int) -> None:
            for w, o in zip(self._weights, out, strict=True):
                kernels.times_vector(w, vector, o, *_range(len(w), part, self._threads))

        _spread(self._threads, work)
        return [
            torch.from_numpy(o).mul_(p.scale).view(p.heads, -1) for o, p in zip(out, self._projections, strict=True)
        ]

    def pulled(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        rows = [
            np.ascontiguousarray((g.flatten() * p.scale).numpy(), np.float32)
            for g, p in zip(gradients, self._projections, strict=True)
        ]
        out = np.zeros((self._threads, self._weights[0].shape[1]), np.float32)

        def work(part: int) -> None:
            for row, w in zip(rows, self._weights, strict=True):
                kernels.add_times_matrix(row, w, out[part], *_range(len(w), part, self._threads))

        _spread(self._threads, work)
        return torch.from_numpy(out.sum(0))
