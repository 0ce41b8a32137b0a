"""Joins equal work in flight and remembers the latest results.

Label Studio's data manager asks twice at once for one task (measured), and after a one-result answer it asks again for
a task that was just done.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Thread-safe.

    Args:
        size: results kept, least recently used goes first.
        seconds: how long a result is kept; an image behind an unchanged URL may change.
    """

    def __init__(self, size: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._seconds, self._clock = size, seconds, clock
        self._done: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._running: dict[Hashable, Future[T]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, work: Callable[[], T]) -> T:
        """The kept result, the one under way, or that of ``work`` run in this thread.  Failures are not kept."""
        with self._lock:
            kept = self._done.get(key)
            if kept is not None and self._clock() - kept[0] < self._seconds:
                self._done.move_to_end(key)
                return kept[1]
            running = self._running.get(key)
            if running is None:
                mine: Future[T] = Future()
                self._running[key] = mine
        if running is not None:
            return running.result()
        try:
            result = work()
        except BaseException as error:
            with self._lock:
                del self._running[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._done[key] = (self._clock(), result)
            self._done.move_to_end(key)
            while len(self._done) > self._size:
                self._done.popitem(last=False)
        mine.set_result(result)
        return result
