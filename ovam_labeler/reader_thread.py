"""One thread that owns the diffusion model: calls in order, and waiting reads of one kind taken together.

The reader is not thread-safe and a device has room for one, so a single thread serves all.  Whenever it turns to a read,
the reads that wait meanwhile and could share its UNet batch come along, at most :data:`MOST_READS`; everything else keeps
its order.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from ovam_labeler.errors import OvamError

log = logging.getLogger(__name__)

#: Most reads handed over together; the reader bounds its UNet batches itself.
MOST_READS = 8

_CLOSING = "The program is shutting down; the work was not done."

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Waiting(Generic[R]):
    """A read that waits: those of equal ``kind`` may be read together.  Its future is resolved by whoever reads it."""

    kind: Hashable
    request: R
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    work: Callable[[], Any]
    future: Future[Any]


class ReaderThread(Generic[R]):
    """Started at the first work.  Thread-safe."""

    def __init__(self, read: Callable[[list[Waiting[R]]], None], threads: int = 0) -> None:
        """Args: read resolves every future it is handed, with a result or an error, and raises nothing; threads of
        torch on this thread, 0 = the cores available."""
        self._read = read
        self._threads = threads
        self._queue: deque[Waiting[R] | _Call] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call(self, work: Callable[[], Any], future: Future[Any] | None = None) -> Future[Any]:
        """Have a function called on the thread; its outcome goes into the future that is returned."""
        call = _Call(work, Future() if future is None else future)
        self._put(call)
        return call.future

    def read(self, waiting: Waiting[R]) -> None:
        """Have a read done, with others of its kind."""
        self._put(waiting)

    def close(self) -> None:
        """Finish what runs, refuse what waits, end the thread."""
        with self._changed:
            self._closed = True
            thread, refused = self._thread, list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        for item in refused:
            item.future.set_exception(OvamError(_CLOSING))
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _put(self, item: Waiting[R] | _Call) -> None:
        with self._changed:
            closed = self._closed
            if not closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="ovam-reader", daemon=True)
                    self._thread.start()
                self._queue.append(item)
                self._changed.notify()
        if closed:
            item.future.set_exception(OvamError(_CLOSING))

    def _run(self) -> None:
        torch.set_num_threads(self._threads or available_cores())
        while (taken := self._take()) is not None:
            if isinstance(taken, _Call):
                try:
                    taken.future.set_result(taken.work())
                except BaseException as error:  # handed to whoever waits, cancelling included; the thread lives on
                    taken.future.set_exception(error)
            else:
                try:
                    self._read(taken)
                except BaseException as error:
                    log.exception("A read broke its promise to raise nothing")
                    for waiting in taken:
                        if not waiting.future.done():
                            waiting.future.set_exception(error)
            del taken

    def _take(self) -> _Call | list[Waiting[R]] | None:
        """The next call, or the next read with its like; None when closed."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            first = self._queue.popleft()
            if isinstance(first, _Call):
                return first
            together, others = [first], deque[Waiting[R] | _Call]()
            for item in self._queue:
                if isinstance(item, Waiting) and item.kind == first.kind and len(together) < MOST_READS:
                    together.append(item)
                else:
                    others.append(item)
            self._queue = others
            return together


def available_cores() -> int:
    """CPU cores this process may use: its affinity, a container's quota, and OMP_NUM_THREADS where it is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # No control groups, or of the first version: the affinity stands.
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(wanted))) if wanted.isdigit() and int(wanted) else cores
