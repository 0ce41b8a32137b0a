"""Peak growth of anonymous resident memory while some work runs: what the work holds beside mapped files.

A child process samples ``/proc/<pid>/smaps_rollup``, so that neither the interpreter's lock nor a kernel that never gives
it back hides a peak.  Freed memory that the allocator kept from earlier work is given back first, else the work could
reuse it unseen.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from contextlib import suppress
from types import TracebackType

#: Seconds between samples.  A temporary that lives shorter may be missed; at a gigabyte a second that is 2 MB.
INTERVAL = 0.002

_SAMPLER = """
import os, select, sys
path, interval, peak = f"/proc/{sys.argv[1]}/smaps_rollup", float(sys.argv[2]), 0
def now():
    for line in open(path):
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
first = peak = now()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], interval)[0]:
    peak = max(peak, now())
print(first, max(peak, now()), flush=True)
"""


class AnonymousPeak:
    """Context manager; afterwards ``growth`` is the peak above the start in bytes, ``growth_mb`` in 1e6 bytes.

    Raises:
        OSError: this system has no ``/proc/self/smaps_rollup`` (it is Linux's).
    """

    growth = 0

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._sampler: subprocess.Popen[str] | None = None

    @property
    def growth_mb(self) -> float:
        return self.growth / 1e6

    def __enter__(self) -> AnonymousPeak:
        release_freed()
        self._sampler = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _SAMPLER, str(os.getpid()), str(self._interval)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._sampler.stdout is not None
        self._sampler.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sampler is not None
        text, _ = self._sampler.communicate("\n")
        first, peak = map(int, text.split())
        self.growth = peak - first


def release_freed() -> None:
    """Give memory that was freed, but kept by the allocator, back to the system (glibc; elsewhere nothing happens)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
