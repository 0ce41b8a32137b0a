"""Runs one claimed job to its end: progress, success, retry with back-off, failure, cancelling."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from backends.contract import Progress
from ovam_labeler.errors import CancelledError, FetchError, OvamError, StorageFullError
from ovam_labeler.jobs.contract import JobHandler
from ovam_labeler.translate import translate_errors
from token_store.contract import NotFoundError, StoreError, StoreFullError, TokenStore
from token_store.entities import Job

log = logging.getLogger(__name__)

#: Errors that time may heal, and how long each further attempt waits.
RETRIED = (FetchError, StorageFullError)
BACK_OFF = (5.0, 30.0, 120.0, 600.0, 1800.0)

#: Progress is written at most this often, and cancelling is noticed then.
PROGRESS_SECONDS = 0.5

#: Waiting time between attempts to write the end of a job while the store refuses (a full disk).
STORE_SECONDS = 5.0


class JobRunner:
    """Runs jobs of known kinds against a store."""

    def __init__(
        self,
        store: TokenStore,
        handlers: Mapping[str, JobHandler],
        stopping: threading.Event,
        *,
        back_off: tuple[float, ...] = BACK_OFF,
        store_seconds: float = STORE_SECONDS,
    ) -> None:
        """Args: stopping ends waiting for a full disk; back_off in seconds, its length + 1 = attempts at most."""
        self._store = store
        self._handlers = handlers
        self._stopping = stopping
        self._back_off = back_off
        self._store_seconds = store_seconds

    def run(self, job: Job) -> None:
        """Run a claimed job; whatever happens ends in the store, nothing is raised."""
        handler = self._handlers[job.kind]
        try:
            with translate_errors():
                result = dict(handler.run(job, self._progress(job)))
        except CancelledError:
            # Whoever cancelled it has written so.
            log.info("Job %d (%s) was cancelled.", job.id, job.kind)
        except RETRIED as error:
            self._retry(job, handler, error)
        except OvamError as error:
            self._fail(job, handler, str(error))
        except Exception:
            log.exception("Job %d (%s) stopped by an unexpected error", job.id, job.kind)
            self._fail(job, handler, "An internal error stopped the work; the server's log has the details.")
        else:
            self._write(lambda: self._store.finish_job(job.id, state="done", message="done", result=result))

    def _retry(self, job: Job, handler: JobHandler, error: OvamError) -> None:
        if job.attempts > len(self._back_off):
            self._fail(job, handler, f"{error} Given up after {job.attempts} attempts.")
            return
        seconds = self._back_off[job.attempts - 1]
        log.warning("Job %d (%s) is tried again in %.0f s: %s", job.id, job.kind, seconds, error)
        due = datetime.now(UTC) + timedelta(seconds=seconds)
        self._write(lambda: self._store.retry_job(job.id, run_after=due, message=str(error)))

    def _fail(self, job: Job, handler: JobHandler, sentence: str) -> None:
        log.warning("Job %d (%s) failed: %s", job.id, job.kind, sentence)
        try:
            handler.gave_up(job, sentence)
        except Exception:
            log.exception("Job %d (%s): its failure could not be told", job.id, job.kind)
        self._write(lambda: self._store.finish_job(job.id, state="failed", message=sentence))

    def _write(self, write: Callable[[], object]) -> None:
        """Write a job's end, waiting while the disk is full; a job never written stays running and is queued again."""
        while True:
            try:
                write()
                return
            except StoreFullError as error:
                log.warning("The end of a job cannot be written yet: %s", error)
                if self._stopping.wait(self._store_seconds):
                    return
            except StoreError as error:
                log.warning("The end of a job could not be written: %s", error)
                return

    def _progress(self, job: Job) -> Progress:
        """A callback that writes at most twice a second and raises CancelledError after a cancel."""
        last = [0.0]

        def report(fraction: float, message: str) -> None:
            now = time.monotonic()
            if now - last[0] < PROGRESS_SECONDS:
                return
            last[0] = now
            try:
                self._store.update_job(job.id, progress=min(max(fraction, 0.0), 1.0), message=message)
                state = self._store.get_job(job.id).state
            except NotFoundError:
                state = "cancelled"
            except StoreError as error:
                log.debug("Progress of job %d was not written: %s", job.id, error)
                return
            if state == "cancelled":
                raise CancelledError(f"Job {job.id} was cancelled.")

        return report
