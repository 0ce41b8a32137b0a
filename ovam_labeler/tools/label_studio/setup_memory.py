"""The model version that /setup answers, from memory: whatever the database or the worker does, the answer is in time.

Label Studio waits 3 s, then marks the backend as failed.  Each question starts a look at the store beside the request, and
waits for it a moment only; a project asked for the first time is waited for longer.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError

from ovam_labeler.errors import ModelError

log = logging.getLogger(__name__)

#: Seconds that a request waits for the look at the store: where something is remembered, and where nothing is.
GLANCE, FIRST = 0.25, 2.0

REMEMBERED = 1024


class SetupMemory:
    """Thread-safe."""

    def __init__(self, *, glance: float = GLANCE, first: float = FIRST) -> None:
        self._glance, self._first = glance, first
        self._known: OrderedDict[Hashable, str] = OrderedDict()
        self._looking: dict[Hashable, Future[str]] = {}
        self._lock = threading.Lock()
        self._looks = ThreadPoolExecutor(4, thread_name_prefix="setup")

    def get(self, key: Hashable, look: Callable[[], str]) -> str:
        """The version by ``look``, or the one remembered where ``look`` takes too long.

        Raises:
            ModelError: nothing is remembered and the store does not answer.
            OvamError: what ``look`` raised.
        """
        with self._lock:
            known = self._known.get(key)
            future = self._looking.get(key)
            if future is None:
                future = self._looking[key] = self._looks.submit(self._look, key, look)
        try:
            return future.result(self._first if known is None else self._glance)
        except NotYetError:
            if known is None:
                raise ModelError("The database does not answer in time; Label Studio asks again by itself.") from None
            log.warning("The database does not answer; /setup is answered with the version known before.")
            return known

    def _look(self, key: Hashable, look: Callable[[], str]) -> str:
        try:
            version = look()
            with self._lock:
                self._known[key] = version
                self._known.move_to_end(key)
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return version
        finally:
            with self._lock:
                self._looking.pop(key, None)
