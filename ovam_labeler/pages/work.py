"""Corrections with the jobs that learn them, and what can be done with either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ovam_labeler.errors import BadRequestError
from ovam_labeler.jobs.kinds import LEARN
from token_store.contract import TokenStore
from token_store.entities import Correction, Job, Scope

#: Most jobs looked through for those of the corrections shown.
LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job and what a person may do with it.

    Attributes:
        correction_id, scope, labels: what it is about, as far as its payload says.
        waits: it is queued for later, after a try that failed.
        again, cancel: whether it may be tried again, or cancelled.
    """

    job: Job
    correction_id: int | None
    scope: Scope | None
    labels: tuple[str, ...]

    @property
    def waits(self) -> bool:
        return self.job.state == "queued" and self.job.attempts > 0 and self.job.run_after > datetime.now(UTC)

    @property
    def again(self) -> bool:
        return self.job.state in ("failed", "cancelled") or self.waits

    @property
    def cancel(self) -> bool:
        return self.job.state in ("queued", "running")

    @property
    def seconds(self) -> float | None:
        if self.job.started_at is None or self.job.finished_at is None:
            return None
        return max(0.0, (self.job.finished_at - self.job.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    correction: Correction
    job: JobRow | None

    @property
    def again(self) -> bool:
        """It failed, or it waits and nothing will take it up (its job was cancelled)."""
        if self.correction.state == "failed":
            return self.job is None or self.job.job.state not in ("queued", "running")
        stuck = self.job is None or self.job.job.state in ("failed", "cancelled", "done")
        return self.correction.state == "pending" and stuck


def job_row(job: Job) -> JobRow:
    payload = job.payload
    number = payload.get("correction_id")
    connection, project = payload.get("connection"), payload.get("project")
    labels = payload.get("labels") or [payload.get("label")]
    return JobRow(
        job,
        number if isinstance(number, int) else None,
        Scope(connection, project) if isinstance(connection, str) and isinstance(project, str) else None,
        tuple(label for label in labels if isinstance(label, str)) if isinstance(labels, list) else (),
    )


def correction_rows(
    store: TokenStore, scopes: Iterable[Scope], states: Sequence[str], label: str | None, limit: int
) -> list[CorrectionRow]:
    """Newest first, each with its newest job."""
    found = [c for s in scopes for c in store.list_corrections(s, label=label, states=states, limit=limit)]
    found.sort(key=lambda c: c.id, reverse=True)
    jobs = _jobs_by_correction(store)
    return [CorrectionRow(c, jobs.get(c.id)) for c in found[:limit]]


def learn_again(store: TokenStore, correction_id: int, who: str) -> Correction:
    """Queue a failed or forgotten correction once more.

    Raises:
        NotFoundError: of the store.
        BadRequestError: it is learned, withdrawn, or on its way already.
    """
    correction = store.get_correction(correction_id)
    row = CorrectionRow(correction, _jobs_by_correction(store).get(correction.id))
    if not row.again:
        raise BadRequestError(f"Correction {correction.id} is {correction.state} and is not tried again.")
    # Waiting first: a worker may have learned it before this returns.
    store.set_correction_state(correction.id, "pending", note=f"Tried again by {who}.")
    store.add_job(
        LEARN,
        {
            "correction_id": correction.id,
            "connection": correction.scope.connection,
            "project": correction.scope.project,
            "task_id": correction.task_id,
            "labels": list(correction.labels),
        },
    )
    return correction


def run_again(store: TokenStore, job_id: int, who: str) -> None:
    """Queue a job's work again, at once.

    Raises:
        NotFoundError: of the store.
        BadRequestError: it is done, running or about to run.
    """
    row = job_row(store.get_job(job_id))
    if not row.again:
        raise BadRequestError(f"Job {job_id} is {row.job.state} and is not tried again.")
    if row.job.state == "queued":
        store.finish_job(job_id, state="cancelled", message=f"Tried at once instead, by {who}. {row.job.message}")
    if row.job.kind == LEARN and row.correction_id is not None:
        learn_again(store, row.correction_id, who)
    else:
        store.add_job(row.job.kind, row.job.payload)


def cancel(store: TokenStore, job_id: int, who: str) -> None:
    """Cancel a job that waits or runs.

    Raises:
        NotFoundError, StoreError: of the store.
        BadRequestError: it has ended.
    """
    if not job_row(store.get_job(job_id)).cancel:
        raise BadRequestError(f"Job {job_id} has ended already.")
    store.finish_job(job_id, state="cancelled", message=f"Cancelled by {who}.")


def _jobs_by_correction(store: TokenStore) -> Mapping[int, JobRow]:
    found: dict[int, JobRow] = {}
    for job in store.list_jobs(kinds=(LEARN,), limit=LOOKED_AT):
        row = job_row(job)
        if row.correction_id is not None:
            found.setdefault(row.correction_id, row)
    return found
