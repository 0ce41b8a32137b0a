"""The built-in engine: one worker thread in this process, woken at once by :meth:`LocalJobs.notify`.

A worker holds a lock on a file of its own while it lives.  A running job whose worker's file is not locked was left by a
dead process (SIGKILL, power cut) and is queued again at the next start; a live worker's job is left alone.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ovam_labeler.jobs.contract import JobHandler
from ovam_labeler.jobs.worker import BACK_OFF, JobRunner
from token_store.contract import StoreError, TokenStore
from token_store.entities import Job

log = logging.getLogger(__name__)

#: How often due retries, and jobs added by other processes, are looked for.
POLL_SECONDS = 1.0


class LocalJobs:
    """Implements :class:`ovam_labeler.jobs.contract.JobEngine`."""

    def __init__(
        self,
        store: TokenStore,
        handlers: Mapping[str, JobHandler],
        folder: Path,
        *,
        poll_seconds: float = POLL_SECONDS,
        back_off: tuple[float, ...] = BACK_OFF,
        background: Sequence[str] = (),
    ) -> None:
        """Args: folder of the workers' lock files, shared by the processes that share the store; background kinds are
        done only where no other is due, so that hundreds of them keep no annotator waiting."""
        self._store = store
        self._handlers = handlers
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._background = frozenset(background)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._runner = JobRunner(store, handlers, self._stopping, back_off=back_off)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._alive = FileLock(self._file(self._name))
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        with self._starting:
            if self._thread is not None or self._stopping.is_set():
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            self._alive.acquire(timeout=0)
            self._requeue()
            self._thread = threading.Thread(target=self._work, name="ovam-worker", daemon=True)
            self._thread.start()

    def notify(self) -> None:
        self._wake.set()

    def stop(self, timeout: float | None = None) -> bool:
        self._stopping.set()
        self._wake.set()
        thread = self._thread
        if thread is None:
            return True
        if thread is not threading.current_thread():
            thread.join(timeout)
        if thread.is_alive():
            return False
        self._alive.release()
        self._file(self._name).unlink(missing_ok=True)
        return True

    def _work(self) -> None:
        while not self._stopping.is_set():
            # Cleared before the store is asked: a job added after the question sets it again.
            self._wake.clear()
            try:
                job = self._claim()
            except StoreError as error:
                log.warning("No job could be claimed: %s", error)
                self._stopping.wait(self._poll_seconds)
                continue
            if job is None:
                self._wake.wait(self._poll_seconds)
                continue
            self._runner.run(job)

    def _claim(self) -> Job | None:
        kinds = sorted(self._handlers)
        first = [kind for kind in kinds if kind not in self._background]
        job = self._store.claim_job(self._name, first) if first else None
        return job or (self._store.claim_job(self._name, kinds) if len(first) < len(kinds) else None)

    def _requeue(self) -> None:
        """Queue the jobs of workers that live no more."""
        for worker in {job.worker for job in self._store.list_jobs(states=("running",), limit=10_000)}:
            if lives(self._file(worker)):
                continue
            jobs = self._store.requeue_interrupted(worker)
            log.info("Queued again after an interruption: %s", ", ".join(f"{job.kind} {job.id}" for job in jobs))
            self._file(worker).unlink(missing_ok=True)

    def _file(self, worker: str) -> Path:
        # Names are made above; another engine's name is no path of ours.
        return self._folder / f"{os.path.basename(worker) or 'unnamed'}.lock"


def lives(path: Path) -> bool:
    """Whether the worker that holds this lock file runs."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def live_workers(folder: Path) -> list[str]:
    """Names of the workers of this data folder that run now, in any process of this machine."""
    return sorted(path.stem for path in folder.glob("*.lock") if lives(path))
