"""Tokens, their versions and aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from token_store import tensor_codec
from token_store.contract import InvalidTokenError, InvalidValueError, NotFoundError
from token_store.entities import TOKEN_STATES, NewTokenVersion, Scope, Token, TokenVersion
from token_store.sql import values
from token_store.sql.session import SqlTransactions
from token_store.tables import AliasRow, TokenRow, TokenVersionRow, VersionSourceRow

#: The alias that predictions use.
ACTIVE = "active"


class SqlTokens(SqlTransactions):
    def add_version(
        self, scope: Scope, class_name: str, new: NewTokenVersion, *, aliases: Sequence[str] = ()
    ) -> TokenVersion:
        """See :meth:`token_store.contract.TokenStore.add_version`."""
        values.scope(scope)
        values.name("class_name", class_name, InvalidTokenError)
        for alias in aliases:
            _alias_name(alias)
        row = _new_row(new)
        with self._write() as session:
            token = self._token_for_update(session, scope, class_name)
            token.last_number += 1
            row.token_id, row.number = token.id, token.last_number
            session.add(row)
            session.flush()
            for alias in dict.fromkeys(aliases):
                self._move_alias(session, token, alias, row.number, who=new.created_by, why="new version")
            session.flush()
            return _entity(_load(session, scope, class_name, row.number))

    def get_version(self, scope: Scope, class_name: str, version: int | str) -> TokenVersion:
        """See :meth:`token_store.contract.TokenStore.get_version`."""
        with self._read() as session:
            return _entity(_load(session, scope, class_name, version))

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
                        .where(*_of(place), TokenRow.class_name.in_(part), AliasRow.alias == ACTIVE)
                    )
                    found.update({row.token.class_name: _entity(row) for row in rows})
        return {name: found[name] for name in dict.fromkeys(class_names) if name in found}

    def list_tokens(self, scope: Scope | None = None, name_contains: str = "") -> list[Token]:
        """By scope, then name.  ``name_contains`` ignores case."""
        counts = select(TokenVersionRow.token_id, func.count().label("versions")).group_by(TokenVersionRow.token_id)
        count = counts.subquery()
        query = select(TokenRow, count.c.versions).join(count, count.c.token_id == TokenRow.id)
        if scope is not None:
            query = query.where(*_of(scope))
        if name_contains:
            query = query.where(func.lower(TokenRow.class_name).contains(name_contains.lower(), autoescape=True))
        query = query.order_by(TokenRow.connection, TokenRow.project, TokenRow.class_name)
        with self._read() as session:
            return [
                Token(
                    scope=Scope(row.connection, row.project),
                    class_name=row.class_name,
                    versions=versions,
                    aliases={alias.alias: alias.number for alias in row.aliases},
                    created_at=row.created_at,
                )
                for row, versions in session.execute(query)
            ]

    def list_versions(self, scope: Scope, class_name: str) -> list[TokenVersion]:
        """Oldest first; empty for an unknown class."""
        query = _versions(scope, class_name).order_by(TokenVersionRow.number)
        with self._read() as session:
            return [_entity(row) for row in session.scalars(query)]

    def set_alias(self, scope: Scope, class_name: str, alias: str, version: int | None, *, who: str, why: str) -> None:
        """See :meth:`token_store.contract.TokenStore.set_alias`.  Raises NotFoundError for an unknown version."""
        _alias_name(alias)
        with self._write() as session:
            token = self._existing_token(session, scope, class_name)
            if version is not None:
                _load(session, scope, class_name, version)
            self._move_alias(session, token, alias, version, who=who, why=why)

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
        """See :meth:`token_store.contract.TokenStore.set_version_state`."""
        values.one_of("state", state, TOKEN_STATES, InvalidTokenError)
        merged = values.mapping("metrics", metrics or {}, InvalidTokenError)
        with self._write() as session:
            self._existing_token(session, scope, class_name)
            row = _load(session, scope, class_name, version)
            details = _details(scope, class_name) | {"version": row.number, "from": row.state, "to": state}
            row.state = state
            row.metrics = {**row.metrics, **merged}
            self._record(session, who=who, what="version.state", why=why, details=details)
            session.flush()
            return _entity(row)

    def _token_for_update(self, session: Session, scope: Scope, class_name: str) -> TokenRow:
        """The token's row, made if need be; no other transaction numbers its versions until this one ends."""
        self._queue_up(session, "token", scope.connection, scope.project, class_name)
        row = session.scalar(select(TokenRow).where(*_of(scope), TokenRow.class_name == class_name))
        if row is None:
            row = TokenRow(
                connection=scope.connection,
                project=scope.project,
                class_name=class_name,
                last_number=0,
                created_at=values.now(),
            )
            session.add(row)
            session.flush()
        return row

    def _existing_token(self, session: Session, scope: Scope, class_name: str) -> TokenRow:
        self._queue_up(session, "token", scope.connection, scope.project, class_name)
        row = session.scalar(select(TokenRow).where(*_of(scope), TokenRow.class_name == class_name))
        if row is None:
            raise NotFoundError(f"There is no token {class_name!r} in scope {scope}.")
        return row

    def _move_alias(
        self, session: Session, token: TokenRow, alias: str, number: int | None, *, who: str, why: str
    ) -> None:
        row = session.get(AliasRow, (token.id, alias))
        old = row.number if row else None
        if old == number:
            return
        if row is None:
            assert number is not None, "an absent alias that stays absent has returned above"
            session.add(AliasRow(token_id=token.id, alias=alias, number=number, updated_at=values.now()))
        elif number is None:
            session.delete(row)
        else:
            row.number, row.updated_at = number, values.now()
        details = _details(Scope(token.connection, token.project), token.class_name)
        details |= {"alias": alias, "from": old, "to": number}
        self._record(session, who=who, what="alias.set" if number else "alias.remove", why=why, details=details)


def _of(scope: Scope) -> tuple[Any, Any]:
    return TokenRow.connection == scope.connection, TokenRow.project == scope.project


def _versions(scope: Scope, class_name: str) -> Any:
    return select(TokenVersionRow).join(TokenVersionRow.token).where(*_of(scope), TokenRow.class_name == class_name)


def _load(session: Session, scope: Scope, class_name: str, version: int | str) -> TokenVersionRow:
    query = _versions(scope, class_name)
    if isinstance(version, str):
        query = query.join(TokenVersionRow.aliases).where(AliasRow.alias == version)
    else:
        query = query.where(TokenVersionRow.number == version)
    row: TokenVersionRow | None = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        what = f"alias {version!r}" if isinstance(version, str) else f"version {version}"
        raise NotFoundError(f"There is no {what} of token {class_name!r} in scope {scope}.")
    return row


def _alias_name(alias: str) -> None:
    if values.name("alias", alias).isdigit():
        raise InvalidValueError(f"alias {alias!r} looks like a version number; use a name such as {ACTIVE!r}.")


def _details(scope: Scope, class_name: str) -> dict[str, Any]:
    return {"connection": scope.connection, "project": scope.project, "class_name": class_name}


def _new_row(new: NewTokenVersion) -> TokenVersionRow:
    """The version's row without its token and number.  Raises InvalidTokenError for any part that is refused."""
    data, sha256 = tensor_codec.encode_embedding(new.embedding)
    fingerprint = values.mapping("fingerprint", new.fingerprint, InvalidTokenError)
    if not isinstance(fingerprint.get("space"), str) or not fingerprint["space"]:
        raise InvalidTokenError("fingerprint.space is missing; the hex name of the embedding space is needed.")
    return TokenVersionRow(
        fingerprint=fingerprint,
        embedding=data,
        sha256=sha256,
        recipe=values.mapping("recipe", new.recipe, InvalidTokenError),
        metrics=values.mapping("metrics", new.metrics, InvalidTokenError),
        state=values.one_of("state", new.state, TOKEN_STATES, InvalidTokenError),
        parent_version=new.parent_version,
        created_by=values.text("created_by", new.created_by, InvalidTokenError),
        created_at=values.now(),
        sources=[
            VersionSourceRow(position=position, correction_id=int(correction))
            for position, correction in enumerate(new.source_corrections)
        ],
    )


def _entity(row: TokenVersionRow) -> TokenVersion:
    """Raises InvalidTokenError when the stored bytes fail their sha256."""
    scope = Scope(row.token.connection, row.token.project)
    try:
        embedding = tensor_codec.decode_embedding(row.embedding, row.sha256)
    except InvalidTokenError as error:
        raise InvalidTokenError(
            f"Version {row.number} of token {row.token.class_name!r} in scope {scope} is refused: {error}"
        ) from error
    return TokenVersion(
        id=row.id,
        scope=scope,
        class_name=row.token.class_name,
        number=row.number,
        fingerprint=row.fingerprint,
        embedding=embedding,
        sha256=row.sha256,
        recipe=row.recipe,
        metrics=row.metrics,
        state=row.state,
        source_corrections=tuple(source.correction_id for source in row.sources),
        parent_version=row.parent_version,
        created_by=row.created_by,
        created_at=row.created_at,
        aliases=tuple(alias.alias for alias in row.aliases),
    )
