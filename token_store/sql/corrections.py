"""Corrections of humans, their labels and their decoded masks."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from token_store import tensor_codec
from token_store.contract import InvalidValueError, NotFoundError
from token_store.entities import CORRECTION_STATES, Correction, CorrectionMask, Job, NewCorrection, Scope
from token_store.sql import values
from token_store.sql.jobs import end, job_entity, new_job
from token_store.sql.session import SqlTransactions
from token_store.tables import CorrectionLabelRow, CorrectionMaskRow, CorrectionRow, JobRow

MASK_KINDS = ("positive", "negative")


class SqlCorrections(SqlTransactions):
    def add_correction(
        self, new: NewCorrection, *, job_kind: str | None = "learn", review_kind: str | None = None
    ) -> tuple[Correction, Job | None, bool]:
        """See :meth:`token_store.contract.TokenStore.add_correction`.

        The job's payload is ``{"correction_id", "connection", "project", "task_id", "labels"}``.  A queued job of a
        replaced correction is cancelled.  An event that arrives late, its ``updated_at`` before that of a stored
        correction of the same annotation, is stored as retracted and gets no job.
        """
        row = _new_row(new)
        with self._write() as session:
            self._queue_up(session, "annotation", new.scope.connection, new.scope.project, new.annotation_id)
            earlier = list(session.scalars(_of_annotations(new.scope, [new.annotation_id]).order_by(CorrectionRow.id)))
            for known in earlier:
                if known.updated_at == new.updated_at:
                    return _entity(known), job_entity(known.job) if known.job else None, False
            session.add(row)
            session.flush()
            newest = next((known for known in reversed(earlier) if _is_later(known.updated_at, new.updated_at)), None)
            if newest is not None:
                self._retract(session, row, f"replaced by correction {newest.id}")
            else:
                replaced = [k for k in earlier if self._retract(session, k, f"replaced by correction {row.id}")]
                self._queue_reviews(session, replaced, review_kind, without={label.label for label in row.labels})
                if row.state == "pending" and job_kind is not None:
                    row.job = new_job(job_kind, _job_payload(row))
            session.flush()
            return _entity(row), job_entity(row.job) if row.job else None, True

    def get_correction(self, correction_id: int) -> Correction:
        """Raises NotFoundError."""
        with self._read() as session:
            return _entity(_correction(session, correction_id))

    def list_corrections(
        self, scope: Scope, *, label: str | None = None, states: Sequence[str] = (), limit: int = 1000
    ) -> list[Correction]:
        """Newest first."""
        for state in states:
            values.one_of("states", state, CORRECTION_STATES)
        query = select(CorrectionRow).where(*_of(scope)).order_by(CorrectionRow.id.desc()).limit(limit)
        if label is not None:
            query = query.where(CorrectionRow.labels.any(CorrectionLabelRow.label == label))
        if states:
            query = query.where(CorrectionRow.state.in_(states))
        with self._read() as session:
            return [_entity(row) for row in session.scalars(query)]

    def retract_corrections(
        self, scope: Scope, annotation_ids: Sequence[str], *, note: str, job_kind: str | None = None
    ) -> list[Correction]:
        """See :meth:`token_store.contract.TokenStore.retract_corrections`.  Their queued jobs are cancelled."""
        values.text("note", note)
        changed = []
        with self._write() as session:
            for part in values.chunks(list(dict.fromkeys(annotation_ids))):
                query = _of_annotations(scope, part).order_by(CorrectionRow.id)
                changed += [row for row in session.scalars(query) if self._retract(session, row, note)]
            self._queue_reviews(session, changed, job_kind)
            return [_entity(row) for row in changed]

    def set_correction_state(
        self, correction_id: int, state: str, *, note: str = "", image_sha256: str | None = None
    ) -> None:
        """Set state and note; ``image_sha256`` None keeps the stored one.

        Retracted is final: a worker that ends after its correction was retracted sets the image, not state or note.
        """
        values.one_of("state", state, CORRECTION_STATES)
        values.text("note", note)
        with self._write() as session:
            row = _correction(session, correction_id, for_update=True)
            if image_sha256 is not None:
                row.image_sha256 = values.text("image_sha256", image_sha256)
            if state == "retracted":
                self._retract(session, row, note)
            elif row.state != "retracted":
                row.state, row.note = state, note

    def put_correction_masks(self, masks: Sequence[CorrectionMask]) -> None:
        """See :meth:`token_store.contract.TokenStore.put_correction_masks`.

        Raises:
            NotFoundError: no such correction; then no mask of the sequence is stored.
            InvalidValueError: kind or arrays are not as :class:`CorrectionMask` says.
        """
        rows = {(mask.correction_id, mask.label): _mask_row(mask) for mask in masks}
        with self._write() as session:
            for correction_id in {mask.correction_id for mask in masks}:
                _correction(session, correction_id, for_update=True)
            for row in rows.values():
                session.merge(row)

    def correction_masks(self, correction_ids: Sequence[int], label: str | None = None) -> list[CorrectionMask]:
        """In the order of ``correction_ids``, then by label."""
        found: dict[int, list[CorrectionMask]] = {}
        with self._read() as session:
            for part in values.chunks(list(dict.fromkeys(correction_ids))):
                query = select(CorrectionMaskRow).where(CorrectionMaskRow.correction_id.in_(part))
                if label is not None:
                    query = query.where(CorrectionMaskRow.label == label)
                for row in session.scalars(query.order_by(CorrectionMaskRow.label)):
                    found.setdefault(row.correction_id, []).append(_mask_entity(row))
        return [mask for correction_id in dict.fromkeys(correction_ids) for mask in found.get(correction_id, [])]

    def _retract(self, session: Session, row: CorrectionRow, note: str) -> bool:
        """Mark as retracted and cancel its queued job; False when it was retracted before."""
        if row.state == "retracted":
            return False
        details = {
            "connection": row.connection,
            "project": row.project,
            "correction_id": row.id,
            "annotation_id": row.annotation_id,
            "from": row.state,
        }
        row.state, row.note = "retracted", note
        if row.job is not None and row.job.state == "queued":
            end(row.job, "cancelled", f"its correction was retracted: {note}")
        self._record(session, who=row.annotator, what="correction.retracted", why=note, details=details)
        return True

    def _queue_reviews(
        self, session: Session, rows: Sequence[CorrectionRow], kind: str | None, without: Set[str] = frozenset()
    ) -> None:
        """One job a label that retracted corrections had taught, unless one waits already."""
        if kind is None or not rows:
            return
        waiting = {
            (job.payload.get("connection"), job.payload.get("project"), job.payload.get("label"))
            for job in session.scalars(select(JobRow).where(JobRow.state == "queued", JobRow.kind == kind))
        }
        for row in rows:
            for label in row.labels:
                key = (row.connection, row.project, label.label)
                if label.label in without or key in waiting:
                    continue
                waiting.add(key)
                session.add(new_job(kind, dict(zip(("connection", "project", "label"), key, strict=True))))


def _of(scope: Scope) -> tuple[Any, Any]:
    return CorrectionRow.connection == scope.connection, CorrectionRow.project == scope.project


def _of_annotations(scope: Scope, annotation_ids: Sequence[str]) -> Select[Any]:
    query = select(CorrectionRow).where(*_of(scope), CorrectionRow.annotation_id.in_(annotation_ids))
    return query.with_for_update()


def _correction(session: Session, correction_id: int, *, for_update: bool = False) -> CorrectionRow:
    query = select(CorrectionRow).where(CorrectionRow.id == correction_id)
    row = session.scalar(query.with_for_update() if for_update else query)
    if row is None:
        raise NotFoundError(f"There is no correction {correction_id}.")
    return row


def _is_later(known: str, new: str) -> bool:
    """Whether a stored ``updated_at`` is after a new one; unknown forms of time count as not (arrival decides)."""
    try:
        first, second = (datetime.fromisoformat(value) for value in (known, new))
    except ValueError:
        return False
    first, second = (time if time.tzinfo else time.replace(tzinfo=UTC) for time in (first, second))
    return first > second


def _job_payload(row: CorrectionRow) -> dict[str, Any]:
    return {
        "correction_id": row.id,
        "connection": row.connection,
        "project": row.project,
        "task_id": row.task_id,
        "labels": [label.label for label in row.labels],
    }


def _new_row(new: NewCorrection) -> CorrectionRow:
    values.scope(new.scope)
    labels = list(dict.fromkeys(values.name("labels", label) for label in new.labels))
    return CorrectionRow(
        connection=new.scope.connection,
        project=new.scope.project,
        annotation_id=values.name("annotation_id", new.annotation_id),
        updated_at=values.name("updated_at", new.updated_at),
        task_id=values.text("task_id", new.task_id),
        image_ref=values.text("image_ref", new.image_ref),
        image_sha256=None,
        payload=values.mapping("payload", new.payload),
        annotator=values.text("annotator", new.annotator),
        state="pending" if labels else "ignored",
        note="",
        created_at=values.now(),
        job_id=None,
        labels=[CorrectionLabelRow(position=position, label=label) for position, label in enumerate(labels)],
    )


def _entity(row: CorrectionRow) -> Correction:
    return Correction(
        id=row.id,
        scope=Scope(row.connection, row.project),
        annotation_id=row.annotation_id,
        updated_at=row.updated_at,
        task_id=row.task_id,
        image_ref=row.image_ref,
        image_sha256=row.image_sha256,
        payload=row.payload,
        labels=tuple(label.label for label in row.labels),
        annotator=row.annotator,
        state=row.state,
        note=row.note,
        created_at=row.created_at,
    )


def _mask_row(mask: CorrectionMask) -> CorrectionMaskRow:
    values.one_of("kind", mask.kind, MASK_KINDS)
    data, sha256 = tensor_codec.encode_masks(mask.mask, mask.ignore)
    if mask.kind == "negative" and mask.mask.any():
        raise InvalidValueError(f"mask of negative label {mask.label!r} must be all False.")
    height, width = mask.mask.shape
    return CorrectionMaskRow(
        correction_id=mask.correction_id,
        label=values.name("label", mask.label),
        kind=mask.kind,
        height=height,
        width=width,
        masks=data,
        sha256=sha256,
    )


def _mask_entity(row: CorrectionMaskRow) -> CorrectionMask:
    mask, ignore = tensor_codec.decode_masks(row.masks, row.sha256, row.height, row.width)
    return CorrectionMask(row.correction_id, row.label, row.kind, mask, ignore)
