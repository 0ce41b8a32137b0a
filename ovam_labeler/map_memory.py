"""Keeps heat maps of single classes, so that a token that lands costs one class's maps and not those of all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch

#: Bytes kept, least recently used first out; a map of 64 x 64 cells takes 16 kB, its logits as much.
KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ClassMap:
    """One class on one capture: its heat map and, where the backend offers them, its logits; (h, w) float32, on the CPU."""

    heat: torch.Tensor
    logits: torch.Tensor | None

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.heat, self.logits) if t is not None)


class MapMemory:
    """Thread-safe.  Two threads that miss the same map both make it."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, ClassMap] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, keys: Sequence[Hashable], make: Callable[[list[int]], Sequence[ClassMap]]) -> list[ClassMap]:
        """The map of each key; those that are missing are made in one call.

        Args:
            keys: what shapes each map: capture, method, query.
            make: given the places of the missing ones, returns theirs in that order.
        """
        with self._lock:
            found = {place: self._kept[key] for place, key in enumerate(keys) if key in self._kept}
            for place in found:
                self._kept.move_to_end(keys[place])
        if missing := [place for place in range(len(keys)) if place not in found]:
            found |= dict(zip(missing, make(missing), strict=True))
            with self._lock:
                for place in missing:
                    self._keep(keys[place], found[place])
        return [found[place] for place in range(len(keys))]

    def _keep(self, key: Hashable, made: ClassMap) -> None:
        if key in self._kept:
            self._bytes -= self._kept.pop(key).bytes
        self._kept[key] = made
        self._bytes += made.bytes
        while self._bytes > self._most:
            self._bytes -= self._kept.popitem(last=False)[1].bytes
