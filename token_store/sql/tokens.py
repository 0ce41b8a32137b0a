"""Versions: added with their verdict in one transaction, and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from token_store.contract import InvalidTokenError
from token_store.entities import NewTokenVersion, Scope, StateChange, TokenVersion
from token_store.registry_contract import ACTIVE
from token_store.sql import values
from token_store.sql.token_rows import (
    SqlTokenRows,
    alias_name,
    entity,
    load,
    new_row,
    of,
    versions_of,
)
from token_store.tables import AliasRow, TokenRow, TokenVersionRow, VersionSourceRow


class SqlTokens(SqlTokenRows):
    def add_version(
        self,
        scope: Scope,
        class_name: str,
        new: NewTokenVersion,
        *,
        aliases: Sequence[str] = (),
        drop_aliases: Sequence[str] = (),
        states: Sequence[StateChange] = (),
        expect: Mapping[str, int | None] | None = None,
        why: str = "new version",
        once: bool = False,
    ) -> TokenVersion:
        """See :meth:`token_store.registry_contract.Registry.add_version`."""
        values.scope(scope)
        values.name("class_name", class_name, InvalidTokenError)
        for alias in (*aliases, *drop_aliases):
            alias_name(alias)
        values.text("why", why)
        row = new_row(new)
        with self._write() as session:
            token = self._token_for_update(session, scope, class_name, make=True)
            if once and (known := _same_work(session, token, new)) is not None:
                return entity(load(session, scope, class_name, known))
            self._expect(session, token, expect)
            token.last_number += 1
            row.token_id, row.number = token.id, token.last_number
            session.add(row)
            session.flush()
            for alias in dict.fromkeys(aliases):
                self._move_alias(session, token, alias, row.number, who=new.created_by, why=why)
            for alias in dict.fromkeys(drop_aliases):
                self._move_alias(session, token, alias, None, who=new.created_by, why=why)
            for change in states:
                other = load(session, scope, class_name, change.version)
                self._change_state(
                    session, other, change.state, who=new.created_by, why=change.why, metrics=change.metrics
                )
            session.flush()
            return entity(load(session, scope, class_name, row.number))

    def get_version(self, scope: Scope, class_name: str, version: int | str) -> TokenVersion:
        """See :meth:`token_store.contract.TokenStore.get_version`."""
        with self._read() as session:
            return entity(load(session, scope, class_name, version))

    def find_active(self, scope: Scope, class_names: Sequence[str]) -> dict[str, TokenVersion]:
        """See :meth:`token_store.contract.TokenStore.find_active`."""
        found: dict[str, TokenVersion] = {}
        with self._read() as session:
            for place in dict.fromkeys((scope, Scope.everywhere())):
                missing = [name for name in dict.fromkeys(class_names) if name not in found]
                for part in values.chunks(missing):
                    rows = session.scalars(
                        select(TokenVersionRow)
                        .join(TokenVersionRow.token)
                        .join(TokenVersionRow.aliases)
                        .where(*of(place), TokenRow.class_name.in_(part), AliasRow.alias == ACTIVE)
                    )
                    found.update({row.token.class_name: entity(row) for row in rows})
        return {name: found[name] for name in dict.fromkeys(class_names) if name in found}

    def list_versions(self, scope: Scope, class_name: str) -> list[TokenVersion]:
        """Oldest first; empty for an unknown class."""
        query = versions_of(scope, class_name).order_by(TokenVersionRow.number)
        with self._read() as session:
            return [entity(row) for row in session.scalars(query)]

    def newest_versions(
        self,
        scope: Scope,
        class_name: str,
        *,
        states: Sequence[str] = (),
        limit: int = 50,
        before: int | None = None,
    ) -> list[TokenVersion]:
        """See :meth:`token_store.registry_contract.Registry.newest_versions`."""
        query = versions_of(scope, class_name).order_by(TokenVersionRow.number.desc()).limit(limit)
        if states:
            query = query.where(TokenVersionRow.state.in_(states))
        if before is not None:
            query = query.where(TokenVersionRow.number < before)
        with self._read() as session:
            return [entity(row) for row in session.scalars(query)]


def _same_work(session: Session, token: TokenRow, new: NewTokenVersion) -> int | None:
    """Number of the version made of the same corrections in the same embedding space, None for new work."""
    sources = sorted(set(new.source_corrections))
    if not sources:
        return None
    query = (
        select(TokenVersionRow)
        .join(TokenVersionRow.sources)
        .where(TokenVersionRow.token_id == token.id, VersionSourceRow.correction_id == sources[0])
        .order_by(TokenVersionRow.number.desc())
    )
    for row in session.scalars(query):
        if row.fingerprint.get("space") == new.fingerprint.get("space") and sources == sorted(
            {source.correction_id for source in row.sources}
        ):
            return row.number
    return None
