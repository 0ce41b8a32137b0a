"""Predictions given to tools, and the tasks that a version touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session, aliased

from token_store.contract import NotFoundError
from token_store.entities import Scope, ServedPrediction
from token_store.sql import values
from token_store.sql.session import SqlTransactions
from token_store.tables import ServedLabelRow, ServedRow, TokenRow, TokenVersionRow


class SqlServed(SqlTransactions):
    def put_served(self, served: Sequence[ServedPrediction]) -> None:
        """Remember predictions; one of the same task and model version replaces the one before."""
        rows = {(one.scope, one.task_id, one.model_version): _row(one) for one in served}
        with self._write() as session:
            for (scope, task_id, model_version), row in sorted(rows.items(), key=lambda item: item[0]):
                self._queue_up(session, "served", scope.connection, scope.project, task_id)
                old = session.scalar(
                    select(ServedRow).where(*_of(scope, task_id), ServedRow.model_version == model_version)
                )
                if old is not None:
                    session.delete(old)
                    session.flush()
                session.add(row)

    def last_served(self, scope: Scope, task_id: str) -> ServedPrediction | None:
        """The newest by ``created_at``, None when the task was never served."""
        newest = select(ServedRow).where(*_of(scope, task_id)).limit(1)
        with self._read() as session:
            row = session.scalar(newest.order_by(ServedRow.created_at.desc(), ServedRow.id.desc()))
            return None if row is None else _entity(row)

    def affected_tasks(
        self, scope: Scope, class_name: str, version: int | None, *, limit: int = 1000
    ) -> list[ServedPrediction]:
        """See :meth:`token_store.registry_contract.Registry.affected_tasks`."""
        with self._read() as session:
            query = select(ServedRow).join(ServedRow.labels).where(ServedLabelRow.label == class_name)
            if version is None:
                query = query.where(ServedLabelRow.version_id.is_(None))
            else:
                query = query.where(ServedLabelRow.version_id == _version_id(session, scope, class_name, version))
            if scope != Scope.everywhere():
                query = query.where(ServedRow.connection == scope.connection, ServedRow.project == scope.project)
            query = query.where(~superseded()).order_by(ServedRow.created_at.desc(), ServedRow.id.desc())
            return [_entity(row) for row in session.scalars(query.limit(limit))]


def superseded() -> Any:
    """Condition: the task was served again later."""
    later = aliased(ServedRow)
    newer = or_(
        later.created_at > ServedRow.created_at,
        (later.created_at == ServedRow.created_at) & (later.id > ServedRow.id),
    )
    return exists().where(
        later.connection == ServedRow.connection,
        later.project == ServedRow.project,
        later.task_id == ServedRow.task_id,
        newer,
    )


def _version_id(session: Session, scope: Scope, class_name: str, number: int) -> int:
    query = (
        select(TokenVersionRow.id)
        .join(TokenVersionRow.token)
        .where(
            TokenRow.connection == scope.connection,
            TokenRow.project == scope.project,
            TokenRow.class_name == class_name,
            TokenVersionRow.number == number,
        )
    )
    found = session.scalar(query)
    if found is None:
        raise NotFoundError(f"There is no version {number} of token {class_name!r} in scope {scope}.")
    return found


def _of(scope: Scope, task_id: str) -> tuple[Any, ...]:
    return (
        ServedRow.connection == scope.connection,
        ServedRow.project == scope.project,
        ServedRow.task_id == task_id,
    )


def _row(one: ServedPrediction) -> ServedRow:
    values.scope(one.scope)
    return ServedRow(
        connection=one.scope.connection,
        project=one.scope.project,
        task_id=values.name("task_id", one.task_id),
        model_version=values.name("model_version", one.model_version),
        regions=values.mapping("regions", one.regions),
        token_versions=values.mapping("token_versions", one.token_versions),
        created_at=values.moment("created_at", one.created_at),
        labels=[
            ServedLabelRow(label=values.name("version_ids", label), version_id=version)
            for label, version in one.version_ids.items()
        ],
    )


def _entity(row: ServedRow) -> ServedPrediction:
    return ServedPrediction(
        scope=Scope(row.connection, row.project),
        task_id=row.task_id,
        model_version=row.model_version,
        regions=row.regions,
        token_versions=row.token_versions,
        created_at=row.created_at,
        version_ids={label.label: label.version_id for label in row.labels},
    )
