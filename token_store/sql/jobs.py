"""Durable work: queued, claimed by one worker, ended or put back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from token_store.contract import InvalidValueError, NotFoundError, StoreError
from token_store.entities import JOB_STATES, Job
from token_store.sql import values
from token_store.sql.session import SqlTransactions
from token_store.tables import JobRow

_ENDED = ("done", "failed", "cancelled")


class SqlJobs(SqlTransactions):
    def add_job(self, kind: str, payload: Mapping[str, Any], *, run_after: datetime | None = None) -> Job:
        """See :meth:`token_store.contract.TokenStore.add_job`.  Due at once without ``run_after``."""
        with self._write() as session:
            row = new_job(kind, payload, run_after)
            session.add(row)
            session.flush()
            return job_entity(row)

    def claim_job(self, worker: str, kinds: Sequence[str] = ()) -> Job | None:
        """See :meth:`token_store.contract.TokenStore.claim_job`."""
        values.text("worker", worker)
        due = _due(kinds)
        with self._read() as session:
            # Idle workers ask often; they must not stand in the writers' queue for nothing.
            if session.scalar(due.with_only_columns(JobRow.id)) is None:
                return None
        with self._write() as session:
            row = session.scalar(due.with_for_update(skip_locked=True))
            if row is None:
                return None
            row.state, row.worker, row.started_at = "running", worker, values.now()
            row.attempts += 1
            row.progress, row.message = 0.0, ""
            return job_entity(row)

    def update_job(self, job_id: int, *, progress: float | None = None, message: str | None = None) -> None:
        """Tell how far a running job is (``progress`` 0..1).  A job no longer running is left as it is."""
        if progress is not None and not (math.isfinite(progress) and 0 <= progress <= 1):
            raise InvalidValueError(f"progress is {progress}; 0 to 1 is allowed.")
        with self._write() as session:
            row = _job(session, job_id)
            if row.state != "running":
                return
            if progress is not None:
                row.progress = float(progress)
            if message is not None:
                row.message = values.text("message", message)

    def finish_job(self, job_id: int, *, state: str, message: str = "", result: Mapping[str, Any] | None = None) -> Job:
        """End a running job as done, failed or cancelled; a queued one may be cancelled.

        Raises:
            StoreError: the job is in another state.
        """
        values.one_of("state", state, _ENDED)
        values.text("message", message)
        plain = values.mapping("result", result or {})
        with self._write() as session:
            row = _job(session, job_id)
            if row.state != "running" and not (row.state == "queued" and state == "cancelled"):
                raise StoreError(f"Job {job_id} is {row.state}; only a running job can end as {state}.")
            row.result = plain
            end(row, state, message)
            return job_entity(row)

    def retry_job(self, job_id: int, *, run_after: datetime, message: str) -> Job:
        """See :meth:`token_store.contract.TokenStore.retry_job`.  Raises StoreError unless the job is running."""
        due = values.moment("run_after", run_after)
        values.text("message", message)
        with self._write() as session:
            row = _job(session, job_id)
            if row.state != "running":
                raise StoreError(f"Job {job_id} is {row.state}; only a running job can be tried again.")
            _requeue(row, due, message)
            return job_entity(row)

    def requeue_interrupted(self, worker: str | None = None) -> list[Job]:
        """See :meth:`token_store.contract.TokenStore.requeue_interrupted`."""
        query = select(JobRow).where(JobRow.state == "running").order_by(JobRow.id).with_for_update()
        if worker is not None:
            query = query.where(JobRow.worker == worker)
        with self._write() as session:
            rows = list(session.scalars(query))
            for row in rows:
                _requeue(row, values.now(), "interrupted, queued again")
            return [job_entity(row) for row in rows]

    def get_job(self, job_id: int) -> Job:
        """Raises NotFoundError."""
        with self._read() as session:
            return job_entity(_job(session, job_id))

    def list_jobs(self, *, states: Sequence[str] = (), kinds: Sequence[str] = (), limit: int = 100) -> list[Job]:
        """Newest first."""
        for state in states:
            values.one_of("states", state, JOB_STATES)
        query = select(JobRow).order_by(JobRow.id.desc()).limit(limit)
        if states:
            query = query.where(JobRow.state.in_(states))
        if kinds:
            query = query.where(JobRow.kind.in_(kinds))
        with self._read() as session:
            return [job_entity(row) for row in session.scalars(query)]


def new_job(kind: str, payload: Mapping[str, Any], run_after: datetime | None = None) -> JobRow:
    now = values.now()
    return JobRow(
        kind=values.name("kind", kind),
        payload=values.mapping("payload", payload),
        state="queued",
        attempts=0,
        progress=0.0,
        message="",
        result={},
        created_at=now,
        run_after=now if run_after is None else values.moment("run_after", run_after),
        started_at=None,
        finished_at=None,
        worker="",
    )


def end(row: JobRow, state: str, message: str) -> None:
    row.state, row.message, row.finished_at = state, message, values.now()
    if state == "done":
        row.progress = 1.0


def _requeue(row: JobRow, run_after: datetime, message: str) -> None:
    row.state, row.run_after, row.message = "queued", run_after, message
    row.progress, row.worker, row.started_at = 0.0, "", None


def _due(kinds: Sequence[str]) -> Select[Any]:
    query = select(JobRow).where(JobRow.state == "queued", JobRow.run_after <= values.now())
    if kinds:
        query = query.where(JobRow.kind.in_(kinds))
    return query.order_by(JobRow.id).limit(1)


def _job(session: Session, job_id: int) -> JobRow:
    row = session.scalar(select(JobRow).where(JobRow.id == job_id).with_for_update())
    if row is None:
        raise NotFoundError(f"There is no job {job_id}.")
    return row


def job_entity(row: JobRow) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        payload=row.payload,
        state=row.state,
        attempts=row.attempts,
        progress=row.progress,
        message=row.message,
        result=row.result,
        created_at=row.created_at,
        run_after=row.run_after,
        started_at=row.started_at,
        finished_at=row.finished_at,
        worker=row.worker,
    )
