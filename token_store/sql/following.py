"""Notes on projects, what became of proposals, and renamed classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from token_store.contract import InvalidValueError
from token_store.entities import KnownAnnotation, ProposalOutcome, Scope
from token_store.sql import values
from token_store.sql.session import SqlTransactions
from token_store.tables import (
    CorrectionLabelRow,
    CorrectionMaskRow,
    CorrectionRow,
    NoteRow,
    OutcomeRow,
    PausedClassRow,
    TokenRow,
)

_KNOWN = ("annotation_id", "updated_at", "task_id", "annotator", "state", "id")


class SqlFollowing(SqlTransactions):
    def get_note(self, scope: Scope, name: str) -> dict[str, Any]:
        """See :meth:`token_store.following_contract.Following.get_note`."""
        with self._read() as session:
            row = session.get(NoteRow, (scope.connection, scope.project, name))
            return {} if row is None else row.value

    def put_note(self, scope: Scope, name: str, value: Mapping[str, Any]) -> None:
        """See :meth:`token_store.following_contract.Following.put_note`."""
        plain = values.mapping("value", value)
        with self._write() as session:
            self._put_note(session, scope, name, plain)

    def change_note(self, scope: Scope, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`token_store.following_contract.Following.change_note`."""
        plain = values.mapping("changes", changes)
        with self._write() as session:
            self._queue_up(session, "note", scope.connection, scope.project, name)
            row = session.get(NoteRow, (scope.connection, scope.project, name))
            merged = {**({} if row is None else row.value), **plain}
            merged = {key: value for key, value in merged.items() if value is not None}
            self._put_note(session, scope, name, merged)
            return merged

    def known_annotations(self, scope: Scope, task_ids: Sequence[str] | None = None) -> list[KnownAnnotation]:
        """See :meth:`token_store.following_contract.Following.known_annotations`."""
        columns = [getattr(CorrectionRow, name) for name in _KNOWN]
        # Of several corrections of an annotation only the newest is not retracted; of retracted ones the last counts.
        order = ((CorrectionRow.state != "retracted"), CorrectionRow.id)
        parts = [None] if task_ids is None else values.chunks(list(dict.fromkeys(task_ids)))
        found: dict[str, KnownAnnotation] = {}
        with self._read() as session:
            for part in parts:
                query = select(*columns).where(*_of(CorrectionRow, scope)).order_by(*order)
                query = query if part is None else query.where(CorrectionRow.task_id.in_(part))
                found |= {row.annotation_id: KnownAnnotation(*row) for row in session.execute(query)}
        return list(found.values())

    def put_outcomes(self, outcomes: Sequence[ProposalOutcome]) -> None:
        """See :meth:`token_store.following_contract.Following.put_outcomes`."""
        rows = [_row(one) for one in outcomes]
        with self._write() as session:
            for row in rows:
                key = (row.connection, row.project, row.annotation_id, row.label)
                self._queue_up(session, "outcome", *key)
                known = session.get(OutcomeRow, key)
                if known is None or known.at <= row.at:
                    session.merge(row)

    def drop_outcomes(self, scope: Scope, annotation_ids: Sequence[str]) -> None:
        """See :meth:`token_store.following_contract.Following.drop_outcomes`."""
        with self._write() as session:
            for part in values.chunks(list(dict.fromkeys(annotation_ids))):
                session.execute(delete(OutcomeRow).where(*_of(OutcomeRow, scope), OutcomeRow.annotation_id.in_(part)))

    def list_outcomes(self, scope: Scope | None = None, label: str | None = None) -> list[ProposalOutcome]:
        """See :meth:`token_store.following_contract.Following.list_outcomes`."""
        query = select(OutcomeRow).order_by(OutcomeRow.at, OutcomeRow.annotation_id, OutcomeRow.label)
        if scope is not None:
            query = query.where(*_of(OutcomeRow, scope))
        if label is not None:
            query = query.where(OutcomeRow.label == label)
        with self._read() as session:
            return [_entity(row) for row in session.scalars(query)]

    def rename_class(self, scope: Scope, old: str, new: str, *, who: str, why: str) -> bool:
        """See :meth:`token_store.following_contract.Following.rename_class`."""
        values.scope(scope)
        values.name("new", new)
        with self._write() as session:
            for name in sorted((old, new)):
                self._queue_up(session, "token", scope.connection, scope.project, name)
            if self._has_class(session, scope, new) or not self._has_class(session, scope, old):
                return False
            token = session.scalar(select(TokenRow).where(*_of(TokenRow, scope), TokenRow.class_name == old))
            if token is not None:
                token.class_name = new
            session.execute(delete(PausedClassRow).where(*_of(PausedClassRow, scope), PausedClassRow.class_name == new))
            session.execute(
                update(PausedClassRow)
                .where(*_of(PausedClassRow, scope), PausedClassRow.class_name == old)
                .values(class_name=new)
            )
            corrections = select(CorrectionRow).where(*_of(CorrectionRow, scope)).with_for_update()
            taught = corrections.where(CorrectionRow.labels.any(CorrectionLabelRow.label == old))
            for row in session.scalars(taught):
                # The annotation stays as it came; whoever decodes it reads its regions' labels through this.
                renamed = {**row.payload.get("renamed", {}), old: new}
                earlier = {was: new for was, now in renamed.items() if now == old}
                row.payload = {**row.payload, "renamed": {**renamed, **earlier}}
                session.execute(
                    update(CorrectionLabelRow)
                    .where(CorrectionLabelRow.correction_id == row.id, CorrectionLabelRow.label == old)
                    .values(label=new)
                )
                session.execute(
                    update(CorrectionMaskRow)
                    .where(CorrectionMaskRow.correction_id == row.id, CorrectionMaskRow.label == old)
                    .values(label=new)
                )
            session.execute(
                update(OutcomeRow).where(*_of(OutcomeRow, scope), OutcomeRow.label == old).values(label=new)
            )
            details = {"connection": scope.connection, "project": scope.project, "class_name": new, "from": old}
            self._record(session, who=who, what="class.rename", why=why, details=details)
            return True

    def _has_class(self, session: Session, scope: Scope, name: str) -> bool:
        token = select(TokenRow.id).where(*_of(TokenRow, scope), TokenRow.class_name == name)
        taught = (
            select(CorrectionLabelRow.correction_id)
            .join(CorrectionRow, CorrectionRow.id == CorrectionLabelRow.correction_id)
            .where(*_of(CorrectionRow, scope), CorrectionLabelRow.label == name)
        )
        return any(session.scalar(query.limit(1)) is not None for query in (token, taught))

    def _put_note(self, session: Session, scope: Scope, name: str, value: dict[str, Any]) -> None:
        values.scope(scope)
        self._queue_up(session, "note", scope.connection, scope.project, name)
        session.merge(
            NoteRow(
                connection=scope.connection,
                project=scope.project,
                name=values.name("name", name),
                value=value,
                updated_at=values.now(),
            )
        )


def _of(table: Any, scope: Scope) -> tuple[Any, Any]:
    return table.connection == scope.connection, table.project == scope.project


def _row(one: ProposalOutcome) -> OutcomeRow:
    values.scope(one.scope)
    if one.iou is not None and not 0 <= one.iou <= 1:
        raise InvalidValueError(f"iou is {one.iou}; 0 to 1 is allowed.")
    return OutcomeRow(
        connection=one.scope.connection,
        project=one.scope.project,
        annotation_id=values.name("annotation_id", one.annotation_id),
        label=values.name("label", one.label),
        task_id=values.text("task_id", one.task_id),
        annotator=values.text("annotator", one.annotator),
        model_version=values.text("model_version", one.model_version),
        token_version=one.token_version,
        untouched=one.untouched,
        changed=one.changed,
        deleted=one.deleted,
        drawn=one.drawn,
        iou=one.iou,
        lead_time=one.lead_time,
        at=values.moment("at", one.at),
    )


def _entity(row: OutcomeRow) -> ProposalOutcome:
    return ProposalOutcome(
        scope=Scope(row.connection, row.project),
        annotation_id=row.annotation_id,
        label=row.label,
        task_id=row.task_id,
        annotator=row.annotator,
        model_version=row.model_version,
        token_version=row.token_version,
        untouched=row.untouched,
        changed=row.changed,
        deleted=row.deleted,
        drawn=row.drawn,
        iou=row.iou,
        lead_time=row.lead_time,
        at=row.at,
    )
