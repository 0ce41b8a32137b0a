"""Versions put away and deleted for good."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session, aliased

from token_store.contract import InvalidValueError
from token_store.entities import Garbage, Scope, VersionRef
from token_store.registry_contract import ACTIVE
from token_store.sql import values
from token_store.sql.served import superseded
from token_store.sql.token_rows import SqlTokenRows, details_of, of
from token_store.tables import (
    AliasMoveRow,
    AliasRow,
    ServedLabelRow,
    ServedRow,
    TokenRow,
    TokenVersionRow,
    VersionSourceRow,
    VersionTagRow,
)


class SqlTidying(SqlTokenRows):
    def prune(
        self, scope: Scope | None = None, *, keep: int, who: str, why: str = "", dry_run: bool = False
    ) -> list[VersionRef]:
        """See :meth:`token_store.registry_contract.Registry.prune`."""
        if keep < 0:
            raise InvalidValueError(f"keep is {keep}; 0 or more is allowed.")
        newer = aliased(TokenVersionRow)
        rank = (
            select(func.count())
            .where(newer.token_id == TokenVersionRow.token_id, newer.number > TokenVersionRow.number)
            .scalar_subquery()
        )
        query = (
            select(TokenVersionRow)
            .join(TokenVersionRow.token)
            .where(TokenVersionRow.state != "archived", rank >= keep, ~_HAS_ALIAS)
            .order_by(TokenRow.connection, TokenRow.project, TokenRow.class_name, TokenVersionRow.number)
        )
        pruned = []
        with self._read() if dry_run else self._write() as session:
            for row in session.scalars(query if scope is None else query.where(*of(scope))):
                place = Scope(row.token.connection, row.token.project)
                if not dry_run:
                    # Nobody moves the class's aliases from here on; one may have moved since the question above.
                    self._queue_up(session, "token", place.connection, place.project, row.token.class_name)
                if row.number == _before_active(session, row.token_id) or _aliased(session, row):
                    continue
                pruned.append(VersionRef(place, row.token.class_name, row.number))
                if not dry_run:
                    self._change_state(session, row, "archived", who=who, why=why or f"pruned, {keep} newest kept")
        return pruned

    def collect_garbage(self, *, before: datetime, who: str, why: str = "", dry_run: bool = False) -> Garbage:
        """See :meth:`token_store.registry_contract.Registry.collect_garbage`."""
        until = values.moment("before", before)
        query = (
            select(TokenVersionRow)
            .join(TokenVersionRow.token)
            .where(TokenVersionRow.state == "archived", TokenVersionRow.state_at < until, ~_HAS_ALIAS)
            .order_by(TokenRow.connection, TokenRow.project, TokenRow.class_name, TokenVersionRow.number)
        )
        removed: list[VersionRef] = []
        with self._read() if dry_run else self._write() as session:
            for row in session.scalars(query):
                scope = Scope(row.token.connection, row.token.project)
                if not dry_run:
                    self._queue_up(session, "token", scope.connection, scope.project, row.token.class_name)
                    session.refresh(row, ["state"])
                if row.state != "archived" or _aliased(session, row):
                    continue
                removed.append(VersionRef(scope, row.token.class_name, row.number))
                if not dry_run:
                    details = details_of(scope, row.token.class_name) | {"version": row.number, "sha256": row.sha256}
                    self._record(session, who=who, what="version.delete", why=why, details=details)
                    _delete_version(session, row)
            old = select(ServedRow.id).where(ServedRow.created_at < until, superseded())
            ids = list(session.scalars(old))
            if not dry_run:
                for part in values.chunks(ids):
                    session.execute(delete(ServedLabelRow).where(ServedLabelRow.served_id.in_(part)))
                    session.execute(delete(ServedRow).where(ServedRow.id.in_(part)))
        return Garbage(tuple(removed), len(ids))


_HAS_ALIAS = exists().where(AliasRow.token_id == TokenVersionRow.token_id, AliasRow.number == TokenVersionRow.number)


def _aliased(session: Session, row: TokenVersionRow) -> bool:
    query = select(AliasRow.alias).where(AliasRow.token_id == row.token_id, AliasRow.number == row.number)
    return session.scalar(query.limit(1)) is not None


def _before_active(session: Session, token_id: int) -> int | None:
    """The version that a rollback would bring back, None where it would be the word."""
    query = select(AliasMoveRow.from_number).where(
        AliasMoveRow.token_id == token_id, AliasMoveRow.alias == ACTIVE, AliasMoveRow.undone.is_(False)
    )
    return session.scalar(query.order_by(AliasMoveRow.id.desc()).limit(1))


def _delete_version(session: Session, row: TokenVersionRow) -> None:
    session.execute(delete(VersionSourceRow).where(VersionSourceRow.version_id == row.id))
    session.execute(delete(VersionTagRow).where(VersionTagRow.version_id == row.id))
    session.execute(delete(TokenVersionRow).where(TokenVersionRow.id == row.id))
    session.expunge(row)
