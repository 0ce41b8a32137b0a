"""Finding tokens: filters and pages by key, so that the hundredth page costs what the first does."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, select, tuple_
from sqlalchemy.orm import Session, aliased

from token_store.contract import InvalidTokenError, InvalidValueError, NotFoundError
from token_store.entities import (
    ALL_TOKENS,
    TOKEN_ORDERS,
    TOKEN_STATES,
    Scope,
    Token,
    TokenFilter,
    TokenPage,
    TokenVersion,
    VersionHead,
)
from token_store.registry_contract import ACTIVE
from token_store.sql import values
from token_store.sql.token_rows import SqlTokenRows, entity, name_contains, of
from token_store.tables import AliasRow, TokenRow, TokenTagRow, TokenVersionRow

MAX_PAGE = 1000

#: Columns of a :class:`VersionHead`: everything but the embedding's bytes.
_HEAD = (
    TokenVersionRow.token_id,
    TokenVersionRow.id,
    TokenVersionRow.number,
    TokenVersionRow.state,
    TokenVersionRow.fingerprint,
    TokenVersionRow.metrics,
    TokenVersionRow.parent_version,
    TokenVersionRow.created_by,
    TokenVersionRow.created_at,
)


class SqlSearch(SqlTokenRows):
    def get_token(self, scope: Scope, class_name: str) -> Token:
        """See :meth:`token_store.registry_contract.Registry.get_token`."""
        with self._read() as session:
            row = session.scalar(select(TokenRow).where(*of(scope), TokenRow.class_name == class_name, _HAS_VERSION))
            if row is None:
                raise NotFoundError(f"There is no token {class_name!r} in scope {scope}.")
            return _with_heads(session, [row])[0]

    def find_tokens(self, where: TokenFilter = ALL_TOKENS, *, limit: int = 50, after: str | None = None) -> TokenPage:
        """See :meth:`token_store.registry_contract.Registry.find_tokens`."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidValueError(f"limit is {limit}; 1 to {MAX_PAGE} is allowed.")
        values.one_of("order", where.order, TOKEN_ORDERS)
        query = _filtered(select(TokenRow), where)
        if where.order == "name":
            key: Any = tuple_(TokenRow.connection, TokenRow.project, TokenRow.class_name)
            query = query.order_by(TokenRow.connection, TokenRow.project, TokenRow.class_name)
            if after is not None:
                query = query.where(key > tuple_(*_key(after, (str, str, str))))
        else:
            query = query.order_by(TokenRow.updated_at.desc(), TokenRow.id.desc())
            if after is not None:
                moment, row_id = _key(after, (str, int))
                # A bound value compared with a column takes the column's type; inside a tuple it would not.
                earlier = TokenRow.updated_at < _moment(moment)
                query = query.where(earlier | and_(TokenRow.updated_at == _moment(moment), TokenRow.id < row_id))
        with self._read() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            tokens = _with_heads(session, rows[:limit])
        return TokenPage(tuple(tokens), _after(rows[limit - 1], where.order) if len(rows) > limit else None)

    def count_tokens(self, where: TokenFilter = ALL_TOKENS) -> int:
        """See :meth:`token_store.registry_contract.Registry.count_tokens`."""
        with self._read() as session:
            return session.scalar(_filtered(select(func.count()).select_from(TokenRow), where)) or 0

    def list_tokens(self, scope: Scope | None = None, name_contains: str = "") -> list[Token]:
        """See :meth:`token_store.registry_contract.Registry.list_tokens`."""
        query = _filtered(select(TokenRow), TokenFilter(scope=scope, name_contains=name_contains))
        query = query.order_by(TokenRow.connection, TokenRow.project, TokenRow.class_name)
        with self._read() as session:
            rows = list(session.scalars(query))
            counts: dict[int, int] = {}
            for part in values.chunks([row.id for row in rows]):
                counts |= _counts(session, part)
            return [_token(row, counts[row.id]) for row in rows]

    def list_aliased(self, alias: str = ACTIVE, scope: Scope | None = None) -> list[TokenVersion]:
        """See :meth:`token_store.registry_contract.Registry.list_aliased`."""
        query = (
            select(TokenVersionRow)
            .join(TokenVersionRow.token)
            .join(TokenVersionRow.aliases)
            .where(AliasRow.alias == alias)
            .order_by(TokenRow.connection, TokenRow.project, TokenRow.class_name)
        )
        found = []
        with self._read() as session:
            for row in session.scalars(query if scope is None else query.where(*of(scope))):
                try:
                    found.append(entity(row))
                except InvalidTokenError:
                    continue  # One damaged token must not hide the others.
        return found


_HAS_VERSION: ColumnElement[bool] = exists().where(TokenVersionRow.token_id == TokenRow.id)


def _filtered(query: Select[Any], where: TokenFilter) -> Select[Any]:
    query = query.where(_HAS_VERSION)
    if where.scope is not None:
        query = query.where(*of(where.scope))
    if where.name_contains:
        query = query.where(name_contains(values.text("name_contains", where.name_contains)))
    if where.active is not None:
        has_active = _has_alias(ACTIVE)
        query = query.where(has_active if where.active else ~has_active)
    if where.alias is not None:
        query = query.where(_has_alias(where.alias))
    if where.state is not None or where.space is not None:
        query = query.where(_version_is(where))
    for key, value in where.tags.items():
        tag = exists().where(TokenTagRow.token_id == TokenRow.id, TokenTagRow.key == key)
        query = query.where(tag if value is None else tag.where(TokenTagRow.value == value))
    return query


def _has_alias(alias: str) -> Any:
    return exists().where(AliasRow.token_id == TokenRow.id, AliasRow.alias == alias)


def _version_is(where: TokenFilter) -> Any:
    """Condition on the active version, or on the newest where tokens without an active one are asked for."""
    version = aliased(TokenVersionRow)
    if where.active is False:
        other = aliased(TokenVersionRow)
        newest = select(func.max(other.number)).where(other.token_id == version.token_id).scalar_subquery()
        found = exists().where(version.token_id == TokenRow.id, version.number == newest)
    else:
        found = exists().where(
            AliasRow.token_id == TokenRow.id,
            AliasRow.alias == ACTIVE,
            version.token_id == TokenRow.id,
            version.number == AliasRow.number,
        )
    if where.state is not None:
        found = found.where(version.state == values.one_of("state", where.state, TOKEN_STATES))
    if where.space is not None:
        found = found.where(version.fingerprint["space"].as_string() == where.space)
    return found


def _with_heads(session: Session, rows: Sequence[TokenRow]) -> list[Token]:
    """Entities with counts and heads: three queries, whatever the number of tokens or versions."""
    ids = [row.id for row in rows]
    if not ids:
        return []
    counts, last = {}, {}
    grouped = select(TokenVersionRow.token_id, func.count(), func.max(TokenVersionRow.number))
    for part in values.chunks(ids):
        found = session.execute(grouped.where(TokenVersionRow.token_id.in_(part)).group_by(TokenVersionRow.token_id))
        for token_id, count, number in found:
            counts[token_id], last[token_id] = count, number
    active = {row.id: alias.number for row in rows for alias in row.aliases if alias.alias == ACTIVE}
    wanted = sorted({*active.items(), *last.items()})
    heads: dict[tuple[int, int], VersionHead] = {}
    for pairs in values.chunks(wanted):
        key = tuple_(TokenVersionRow.token_id, TokenVersionRow.number)
        for head in session.execute(select(*_HEAD).where(key.in_(pairs))):
            heads[head.token_id, head.number] = _head(head)
    return [
        _token(row, counts[row.id], heads.get((row.id, active.get(row.id, -1))), heads.get((row.id, last[row.id])))
        for row in rows
    ]


def _counts(session: Session, ids: Sequence[int]) -> dict[int, int]:
    query = select(TokenVersionRow.token_id, func.count()).where(TokenVersionRow.token_id.in_(ids))
    return {row[0]: row[1] for row in session.execute(query.group_by(TokenVersionRow.token_id))}


def _head(row: Row[Any]) -> VersionHead:
    return VersionHead(
        id=row.id,
        number=row.number,
        state=row.state,
        fingerprint=row.fingerprint,
        metrics=row.metrics,
        parent_version=row.parent_version,
        created_by=row.created_by,
        created_at=row.created_at,
    )


def _token(row: TokenRow, versions: int, active: VersionHead | None = None, newest: VersionHead | None = None) -> Token:
    return Token(
        scope=Scope(row.connection, row.project),
        class_name=row.class_name,
        versions=versions,
        aliases={alias.alias: alias.number for alias in row.aliases},
        created_at=row.created_at,
        tags={tag.key: tag.value for tag in row.tags},
        updated_at=row.updated_at,
        active=active,
        newest=newest,
    )


def _after(row: TokenRow, order: str) -> str:
    """Where a page ended, as text that a URL can hold."""
    key: list[Any] = [row.connection, row.project, row.class_name]
    if order == "updated":
        key = [row.updated_at.isoformat(), row.id]
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _key(after: str, kinds: tuple[type, ...]) -> list[Any]:
    try:
        key = json.loads(base64.urlsafe_b64decode(after.encode("ascii")))
    except (ValueError, binascii.Error, UnicodeError):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise InvalidValueError(f"after is {after[:80]!r}; the value given with the page before is needed.")
    return key


def _moment(text: str) -> datetime:
    try:
        return values.moment("after", datetime.fromisoformat(text))
    except ValueError as error:
        raise InvalidValueError("after holds no time; the value given with the page before is needed.") from error
