"""Which tasks Label Studio waits for now, and which requests are the second of two equal ones at once.

The data manager asks twice for a task that is opened, and Label Studio stores whatever it is given, twice (measured).  Both looked
at what Label Studio holds before either asked here; on a busy machine the second comes when the first is answered and stored.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from token_store.entities import Scope

#: A task of a project.
Key = tuple[Scope, str]

#: A request equal to one under way is its twin for so long; then Label Studio has given the first one up (100 s).
TWIN_SECONDS = 60.0

#: Time Label Studio is given to store the first one's answer before its twin is answered with nothing.
STORING_SECONDS = 0.5

#: A request equal to one that was answered no longer ago may be its late twin.
LATE_SECONDS = 5.0


class Asked:
    """Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._alone: dict[Key, float] = {}
        self._answered: dict[Key, float] = {}
        self._together: Counter[Key] = Counter()
        self._lock = threading.Lock()

    def waits(self, key: Key) -> bool:
        """Whether Label Studio waits for the task's prediction now."""
        with self._lock:
            return self._together[key] > 0 or key in self._alone

    @contextmanager
    def together(self, keys: Sequence[Key]) -> Iterator[None]:
        """While a batch is answered."""
        with self._lock:
            self._together.update(keys)
        try:
            yield
        finally:
            with self._lock:
                self._together.subtract(keys)
                self._together += Counter()  # drops what is at 0

    @contextmanager
    def alone(self, key: Key) -> Iterator[bool]:
        """While one task is answered; yields whether it is the first to ask, and no twin of a request under way."""
        with self._lock:
            first = self._clock() - self._alone.get(key, float("-inf")) >= TWIN_SECONDS
            if first:
                self._alone[key] = self._clock()
        try:
            yield first
        finally:
            if first:
                with self._lock:
                    now = self._clock()
                    self._alone.pop(key, None)
                    self._answered = {k: at for k, at in self._answered.items() if now - at < LATE_SECONDS}
                    self._answered[key] = now

    def may_be_late(self, key: Key) -> bool:
        """Whether the task was answered alone a moment ago; returns when Label Studio has had the time to store that."""
        with self._lock:
            since = self._clock() - self._answered.get(key, float("-inf"))
        if since >= LATE_SECONDS:
            return False
        time.sleep(max(0.0, STORING_SECONDS - since))
        return True

    def wait_for_first(self, key: Key) -> None:
        """Wait, as a twin, until the first one is answered and stored."""
        end = self._clock() + TWIN_SECONDS
        while self._clock() < end:
            with self._lock:
                if key not in self._alone:
                    break
            time.sleep(0.02)
        time.sleep(STORING_SECONDS)
