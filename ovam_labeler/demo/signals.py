"""Ctrl-C and SIGTERM both end a demo in order: an exception unwinds the blocks that started processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread on SIGINT and SIGTERM; the old handlers come back afterwards.

    SIGINT is set too, since a shell starts background jobs with it ignored.  Outside the main thread nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {wanted: signal.signal(wanted, _interrupt) for wanted in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
