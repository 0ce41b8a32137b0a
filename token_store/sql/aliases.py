"""What is live: promote, roll back, archive, and the gate's verdicts, each in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from token_store.contract import NothingBeforeError, StoreError
from token_store.entities import AliasChange, Scope, StateChange, TokenVersion
from token_store.registry_contract import ACTIVE
from token_store.sql import values
from token_store.sql.token_rows import SqlTokenRows, alias_name, details_of, entity, load
from token_store.tables import AliasMoveRow, AliasRow, TokenRow, TokenTagRow, TokenVersionRow, VersionTagRow


class SqlAliases(SqlTokenRows):
    def promote(
        self,
        scope: Scope,
        class_name: str,
        version: int | str,
        *,
        who: str,
        why: str,
        expect: Mapping[str, int | None] | None = None,
    ) -> AliasChange:
        """See :meth:`token_store.registry_contract.Registry.promote`."""
        _said(who, why)
        with self._write() as session:
            token = self._token_for_update(session, scope, class_name)
            self._expect(session, token, expect)
            return self._make_active(session, token, load(session, scope, class_name, version), who=who, why=why)

    def rollback(self, scope: Scope, class_name: str, *, who: str, why: str, steps: int = 1) -> AliasChange:
        """See :meth:`token_store.registry_contract.Registry.rollback`."""
        _said(who, why)
        if steps < 1:
            raise StoreError(f"steps is {steps}; at least 1 is needed.")
        with self._write() as session:
            token = self._token_for_update(session, scope, class_name)
            alias = session.get(AliasRow, (token.id, ACTIVE))
            before = alias.number if alias else None
            target = before
            for _ in range(steps):
                target = self._step_back(session, token, target)
            if target is not None:
                self._overrule(session, load(session, scope, class_name, target), who=who, why=why)
            return self._put_alias(session, token, ACTIVE, target, who=who, what="rollback", why=why)

    def archive(self, scope: Scope, class_name: str, version: int, *, who: str, why: str) -> list[AliasChange]:
        """See :meth:`token_store.registry_contract.Registry.archive`."""
        _said(who, why)
        with self._write() as session:
            token = self._token_for_update(session, scope, class_name)
            row = load(session, scope, class_name, version)
            changes = self._drop_aliases_of(session, token, row, who=who, why=why)
            if row.state != "archived":
                self._change_state(session, row, "archived", who=who, why=why)
            return changes

    def set_alias(self, scope: Scope, class_name: str, alias: str, version: int | None, *, who: str, why: str) -> None:
        """See :meth:`token_store.registry_contract.Registry.set_alias`."""
        self.decide(scope, class_name, aliases={alias: version}, who=who, why=why)

    def decide(
        self,
        scope: Scope,
        class_name: str,
        *,
        aliases: Mapping[str, int | None],
        states: Sequence[StateChange] = (),
        who: str,
        why: str,
        expect: Mapping[str, int | None] | None = None,
    ) -> list[AliasChange]:
        """See :meth:`token_store.registry_contract.Registry.decide`."""
        _said(who, why)
        for alias in aliases:
            alias_name(alias)
        changes = []
        with self._write() as session:
            token = self._token_for_update(session, scope, class_name)
            self._expect(session, token, expect)
            for alias, version in aliases.items():
                if version is not None:
                    load(session, scope, class_name, version)
                moved = self._move_alias(session, token, alias, version, who=who, why=why)
                changes += [moved] if moved is not None else []
            for change in states:
                row = load(session, scope, class_name, change.version)
                self._change_state(session, row, change.state, who=who, why=change.why, metrics=change.metrics)
        return changes

    def set_version_state(
        self,
        scope: Scope,
        class_name: str,
        version: int,
        state: str,
        *,
        who: str,
        why: str,
        metrics: Mapping[str, Any] | None = None,
    ) -> TokenVersion:
        """See :meth:`token_store.registry_contract.Registry.set_version_state`."""
        _said(who, why)
        with self._write() as session:
            self._token_for_update(session, scope, class_name)
            row = load(session, scope, class_name, version)
            self._change_state(session, row, state, who=who, why=why, metrics=metrics)
            session.flush()
            return entity(row)

    def set_tag(
        self,
        scope: Scope,
        class_name: str,
        key: str,
        value: str | None,
        *,
        who: str,
        why: str = "",
        version: int | None = None,
    ) -> None:
        """See :meth:`token_store.registry_contract.Registry.set_tag`."""
        _said(who, why)
        values.name("tag", key)
        if value is not None:
            values.text("value", value)
        with self._write() as session:
            token = self._token_for_update(session, scope, class_name)
            known: TokenTagRow | VersionTagRow | None
            if version is None:
                known = session.get(TokenTagRow, (token.id, key))
                new: TokenTagRow | VersionTagRow = TokenTagRow(token_id=token.id, key=key, value=value or "")
            else:
                row = load(session, scope, class_name, version)
                known = session.get(VersionTagRow, (row.id, key))
                new = VersionTagRow(version_id=row.id, key=key, value=value or "")
            old = known.value if known is not None else None
            if old == value:
                return
            if known is None:
                session.add(new)
            elif value is None:
                session.delete(known)
            else:
                known.value = value
            details = details_of(scope, class_name) | {"version": version, "tag": key, "from": old, "to": value}
            self._record(session, who=who, what="tag.remove" if value is None else "tag.set", why=why, details=details)

    def _step_back(self, session: Session, token: TokenRow, at: int | None) -> int | None:
        """Undo the last move of ``active`` that led somewhere else; the number it came from, None = the word.

        Raises:
            NothingBeforeError: nothing is left to take back.
        """
        moves = session.scalars(
            select(AliasMoveRow)
            .where(AliasMoveRow.token_id == token.id, AliasMoveRow.alias == ACTIVE, AliasMoveRow.undone.is_(False))
            .order_by(AliasMoveRow.id.desc())
        )
        for move in moves:
            move.undone = True
            if move.from_number == at:
                continue
            if move.from_number is None or self._usable(session, token, move.from_number):
                return move.from_number
        raise NothingBeforeError(
            f"There is nothing to roll the token {token.class_name!r} back to: no earlier version of it was active."
        )

    @staticmethod
    def _usable(session: Session, token: TokenRow, number: int) -> bool:
        """Whether a version is still there and not put away."""
        query = select(TokenVersionRow.state).where(
            TokenVersionRow.token_id == token.id, TokenVersionRow.number == number
        )
        return session.scalar(query) not in (None, "archived")

    def _drop_aliases_of(
        self, session: Session, token: TokenRow, row: TokenVersionRow, *, who: str, why: str
    ) -> list[AliasChange]:
        query = select(AliasRow.alias).where(AliasRow.token_id == token.id, AliasRow.number == row.number)
        names = list(session.scalars(query.order_by(AliasRow.alias)))
        moved = (self._move_alias(session, token, alias, None, who=who, why=why) for alias in names)
        return [change for change in moved if change is not None]


def _said(who: str, why: str) -> None:
    values.text("who", who)
    values.text("why", why)
