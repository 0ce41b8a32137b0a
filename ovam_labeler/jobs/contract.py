"""Contract of job engines and handlers.

The store's ``jobs`` table is the truth; an engine only delivers: it claims a job, runs its kind's handler, writes how it
went.  Work may run twice (a worker killed at its very end), so handlers are idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from backends.contract import Progress
from token_store.entities import Job


@runtime_checkable
class JobHandler(Protocol):
    """Does the work of one kind of job."""

    def run(self, job: Job, progress: Progress) -> Mapping[str, Any]:
        """Do it; returns what is stored as the job's result (small JSON).

        ``progress`` raises CancelledError where the job was cancelled meanwhile; let it pass.

        Raises:
            FetchError, StorageFullError: the engine tries again later.
            OvamError: the job has failed; its sentence is kept.
        """

    def gave_up(self, job: Job, sentence: str) -> None:
        """Told once when the job has failed for good.  May raise nothing."""


@runtime_checkable
class JobEngine(Protocol):
    """Runs jobs of the store."""

    def start(self) -> None:
        """Queue what a dead process left running, then work in the background.  A second call does nothing."""

    def notify(self) -> None:
        """Look for due jobs now: one was just added.  Returns at once; safe from any thread."""

    def stop(self, timeout: float | None = None) -> bool:
        """Stop taking jobs and wait for the one that runs; False when it still runs after ``timeout`` seconds.

        A job that is still running when the process ends is queued again by the next start.
        """
