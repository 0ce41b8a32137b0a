"""Bundles: a version each of several classes, all in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from token_store.contract import InvalidTokenError
from token_store.entities import Added, AliasChange, NewTokenVersion, Scope
from token_store.sql import values
from token_store.sql.token_rows import SqlTokenRows, alias_name, entity, load, new_row
from token_store.tables import AliasRow, TokenRow, TokenVersionRow


class SqlBundles(SqlTokenRows):
    def add_bundle(
        self,
        scope: Scope,
        versions: Mapping[str, NewTokenVersion],
        *,
        aliases: Sequence[str] = (),
        vacant_aliases: Sequence[str] = (),
        activate: bool = False,
        who: str,
        why: str,
    ) -> list[Added]:
        """See :meth:`token_store.registry_contract.Registry.add_bundle`."""
        values.scope(scope)
        values.text("who", who)
        values.text("why", why)
        for alias in (*aliases, *vacant_aliases):
            alias_name(alias)
        rows = {}
        for name, new in versions.items():
            values.name("class_name", name, InvalidTokenError)
            try:
                rows[name] = new_row(new)
            except InvalidTokenError as error:
                raise InvalidTokenError(f"The token of {name!r} is refused: {error}") from error
        done: dict[str, tuple[int, bool, AliasChange | None]] = {}
        with self._write() as session:
            for name in sorted(
                rows
            ):  # everybody locks classes in one order, so that no two bundles wait for each other
                token = self._token_for_update(session, scope, name, make=True)
                row = _known(session, token, rows[name])
                fresh = row is None
                if row is None:
                    row = rows[name]
                    token.last_number += 1
                    row.token_id, row.number = token.id, token.last_number
                    session.add(row)
                    session.flush()
                    vacant = [a for a in vacant_aliases if session.get(AliasRow, (token.id, a)) is None]
                    for alias in dict.fromkeys((*aliases, *vacant)):
                        self._move_alias(session, token, alias, row.number, who=who, why=why)
                moved = None
                if activate:
                    row = load(session, scope, name, row.number)
                    moved = self._make_active(session, token, row, who=who, why=why)
                done[name] = (row.number, fresh, moved)
            session.flush()
            return [
                Added(entity(load(session, scope, name, number)), fresh, moved)
                for name, (number, fresh, moved) in ((name, done[name]) for name in versions)
            ]


def _known(session: Session, token: TokenRow, new: TokenVersionRow) -> TokenVersionRow | None:
    """The newest version of the token that holds the same numbers of the same embedding space."""
    query = (
        select(TokenVersionRow)
        .where(TokenVersionRow.token_id == token.id, TokenVersionRow.sha256 == new.sha256)
        .order_by(TokenVersionRow.number.desc())
    )
    space = new.fingerprint.get("space")
    return next((row for row in session.scalars(query) if row.fingerprint.get("space") == space), None)
