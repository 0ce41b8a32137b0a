"""Remembers what Label Studio was given and has not stored yet, so that nothing is stored twice for one version.

Told to go one by one, Label Studio asks for each task of a batch, keeps all answers, and stores them together after the
last one (read in its source): for many minutes its API shows nothing of them.  A push in between, or an impatient second
"Retrieve predictions", would make a second copy of each.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from token_store.entities import Scope

#: A sweep whose next question does not come within this was given up: Label Studio waits 100 s for each answer.
SILENT_SECONDS = 120.0

#: Time Label Studio is given to store what it was answered, and for each task of a sweep: on SQLite it stores one by one
#: (measured: .45 s each on a busy machine).
STORING_SECONDS, STORING_EACH = 60.0, 1.0

#: Tasks remembered; the oldest go first.
REMEMBERED = 100_000


@dataclass(slots=True)
class _Sweep:
    """size: tasks that Label Studio was made to ask for one by one, 0 where it asked by itself; left: those that it has yet
    to ask for; heard: when it last asked."""

    size: int
    left: int
    heard: float

    def lives(self, now: float) -> bool:
        patience = SILENT_SECONDS if self.left else STORING_SECONDS + STORING_EACH * self.size
        return now - self.heard < patience


@dataclass(slots=True)
class _Given:
    """version: of the answer; None where Label Studio has yet to ask."""

    sweep: _Sweep
    version: str | None = None


class Sweeps:
    """Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._given: OrderedDict[tuple[Scope, str], _Given] = OrderedDict()
        self._pushed: OrderedDict[tuple[Scope, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, scope: Scope, tasks: Iterable[str]) -> None:
        """Label Studio was made to ask for these one by one."""
        with self._lock:
            names = {task for task in tasks if task}
            sweep = _Sweep(len(names), len(names), self._clock())
            for task in names:
                self._put(scope, task, _Given(sweep))

    def answered(self, scope: Scope, task: str, version: str) -> None:
        """Label Studio was given a task's prediction, and will store it."""
        with self._lock:
            now = self._clock()
            given = self._given.get((scope, task))
            if given is None or not given.sweep.lives(now):
                given = _Given(_Sweep(0, 0, now))
            elif given.version is None:
                given.sweep.left -= 1
            given.sweep.heard = now
            given.version = version
            self._put(scope, task, given)

    def passed_over(self, scope: Scope, task: str) -> None:
        """Label Studio has asked, and was given nothing."""
        with self._lock:
            given = self._given.pop((scope, task), None)
            if given is not None and given.version is None:
                given.sweep.left -= 1
                given.sweep.heard = self._clock()

    def pushed(self, scope: Scope, task: str, version: str) -> None:
        """A task's prediction was pushed."""
        with self._lock:
            self._pushed[(scope, task)] = version
            self._pushed.move_to_end((scope, task))
            while len(self._pushed) > REMEMBERED:
                self._pushed.popitem(last=False)

    def was_pushed(self, scope: Scope, task: str) -> str:
        """The version that was last pushed for a task, or ""."""
        with self._lock:
            return self._pushed.get((scope, task), "")

    def pending(self, scope: Scope, task: str, version: str) -> bool:
        """Whether Label Studio will ask for the task, or was given this version of it and may not have stored it."""
        with self._lock:
            return self._pending(scope, task, version) is not None

    def swept(self, scope: Scope, task: str, version: str) -> bool:
        """As :meth:`pending`, as part of a batch that Label Studio goes through one by one."""
        with self._lock:
            given = self._pending(scope, task, version)
            return given is not None and given.sweep.size > 0

    def _pending(self, scope: Scope, task: str, version: str) -> _Given | None:
        given = self._given.get((scope, task))
        if given is None or given.version not in (None, version) or not given.sweep.lives(self._clock()):
            return None
        return given

    def _put(self, scope: Scope, task: str, given: _Given) -> None:
        self._given[(scope, task)] = given
        self._given.move_to_end((scope, task))
        while len(self._given) > REMEMBERED:
            self._given.popitem(last=False)
