"""Rows of tokens and versions: how they are found, made, and turned into entities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from token_store import tensor_codec
from token_store.contract import ConflictError, InvalidTokenError, InvalidValueError, NotFoundError
from token_store.entities import TOKEN_STATES, AliasChange, NewTokenVersion, Scope, TokenVersion
from token_store.registry_contract import ACTIVE, CANDIDATE
from token_store.sql import values
from token_store.sql.session import SqlTransactions
from token_store.tables import AliasMoveRow, AliasRow, TokenRow, TokenVersionRow, VersionSourceRow

#: States that being made active again overrules.
_OVERRULED = ("rejected", "archived")


class SqlTokenRows(SqlTransactions):
    """What all parts that write tokens share.  A token is locked first; then nobody else moves its aliases."""

    def _token_for_update(self, session: Session, scope: Scope, class_name: str, *, make: bool = False) -> TokenRow:
        """The token's row; no other transaction numbers its versions or moves its aliases until this one ends.

        Raises:
            NotFoundError: no such token, unless it is to be made.
        """
        self._queue_up(session, "token", scope.connection, scope.project, class_name)
        row = session.scalar(select(TokenRow).where(*of(scope), TokenRow.class_name == class_name))
        if row is None and not make:
            raise NotFoundError(f"There is no token {class_name!r} in scope {scope}.")
        now = values.now()
        if row is None:
            row = TokenRow(
                connection=scope.connection,
                project=scope.project,
                class_name=class_name,
                last_number=0,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
            session.flush()
        row.updated_at = now
        return row

    def _move_alias(
        self, session: Session, token: TokenRow, alias: str, number: int | None, *, who: str, why: str
    ) -> AliasChange | None:
        """Move, or remove, an alias and write its history; None where it is there already."""
        row = session.get(AliasRow, (token.id, alias))
        old = row.number if row else None
        if old == number:
            return None
        change = self._put_alias(session, token, alias, number, who=who, what="alias", why=why)
        session.add(
            AliasMoveRow(
                token_id=token.id, alias=alias, from_number=old, to_number=number, undone=False, at=values.now()
            )
        )
        return change

    def _put_alias(
        self, session: Session, token: TokenRow, alias: str, number: int | None, *, who: str, what: str, why: str
    ) -> AliasChange:
        """Move, or remove, an alias and tell the audit log, leaving its history to the caller."""
        row = session.get(AliasRow, (token.id, alias))
        old = row.number if row else None
        if number is None:
            if row is not None:
                session.delete(row)
        elif row is None:
            session.add(AliasRow(token_id=token.id, alias=alias, number=number, updated_at=values.now()))
        else:
            row.number, row.updated_at = number, values.now()
        session.flush()
        scope = Scope(token.connection, token.project)
        details = details_of(scope, token.class_name) | {"alias": alias, "from": old, "to": number}
        kind = f"{what}.remove" if number is None else f"{what}.set"
        self._record(session, who=who, what=kind, why=why, details=details)
        return AliasChange(scope, token.class_name, alias, old, number)

    def _make_active(
        self, session: Session, token: TokenRow, row: TokenVersionRow, *, who: str, why: str
    ) -> AliasChange:
        """See :meth:`token_store.registry_contract.Registry.promote`."""
        self._overrule(session, row, who=who, why=why)
        candidate = session.get(AliasRow, (token.id, CANDIDATE))
        if candidate is not None and candidate.number == row.number:
            self._move_alias(session, token, CANDIDATE, None, who=who, why=why)
        moved = self._move_alias(session, token, ACTIVE, row.number, who=who, why=why)
        scope = Scope(token.connection, token.project)
        return moved or AliasChange(scope, token.class_name, ACTIVE, row.number, row.number)

    def _overrule(self, session: Session, row: TokenVersionRow, *, who: str, why: str) -> None:
        """What is used again is neither rejected nor put away."""
        if row.state in _OVERRULED:
            self._change_state(session, row, "unproven", who=who, why=why)

    def _change_state(
        self,
        session: Session,
        row: TokenVersionRow,
        state: str,
        *,
        who: str,
        why: str,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Set a version's state, merge figures, tell the audit log."""
        values.one_of("state", state, TOKEN_STATES, InvalidTokenError)
        merged = values.mapping("metrics", metrics or {}, InvalidTokenError)
        details = details_of(Scope(row.token.connection, row.token.project), row.token.class_name)
        details |= {"version": row.number, "from": row.state, "to": state}
        row.state, row.state_at = state, values.now()
        if merged:
            row.metrics = {**row.metrics, **merged}
        self._record(session, who=who, what="version.state", why=why, details=details)

    @staticmethod
    def _expect(session: Session, token: TokenRow, expect: Mapping[str, int | None] | None) -> None:
        """Raises ConflictError where an alias is not where the caller saw it."""
        for alias, number in (expect or {}).items():
            row = session.get(AliasRow, (token.id, alias))
            found = row.number if row else None
            if found != number:
                was, now = (("nothing" if n is None else f"version {n}") for n in (number, found))
                raise ConflictError(
                    f"The alias {alias!r} of token {token.class_name!r} points at {now}, not at {was} as when it was judged."
                )


def of(scope: Scope) -> tuple[Any, Any]:
    return TokenRow.connection == scope.connection, TokenRow.project == scope.project


def versions_of(scope: Scope, class_name: str) -> Any:
    return select(TokenVersionRow).join(TokenVersionRow.token).where(*of(scope), TokenRow.class_name == class_name)


def name_contains(text: str) -> Any:
    """Condition: the class name holds the text, case ignored."""
    return func.lower(TokenRow.class_name).contains(text.lower(), autoescape=True)


def load(session: Session, scope: Scope, class_name: str, version: int | str) -> TokenVersionRow:
    """A version by number or alias.  Raises NotFoundError."""
    query = versions_of(scope, class_name)
    if isinstance(version, str):
        query = query.join(TokenVersionRow.aliases).where(AliasRow.alias == version)
    else:
        query = query.where(TokenVersionRow.number == version)
    row: TokenVersionRow | None = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        what = f"alias {version!r}" if isinstance(version, str) else f"version {version}"
        raise NotFoundError(f"There is no {what} of token {class_name!r} in scope {scope}.")
    return row


def alias_name(alias: str) -> str:
    """Raises InvalidValueError: the alias could be taken for a version number."""
    if values.name("alias", alias).isdigit():
        raise InvalidValueError(f"alias {alias!r} looks like a version number; use a name such as {ACTIVE!r}.")
    return alias


def details_of(scope: Scope, class_name: str) -> dict[str, Any]:
    return {"connection": scope.connection, "project": scope.project, "class_name": class_name}


def new_row(new: NewTokenVersion) -> TokenVersionRow:
    """The version's row without its token and number.  Raises InvalidTokenError for any part that is refused."""
    data, sha256 = tensor_codec.encode_embedding(new.embedding)
    fingerprint = values.mapping("fingerprint", new.fingerprint, InvalidTokenError)
    if not isinstance(fingerprint.get("space"), str) or not fingerprint["space"]:
        raise InvalidTokenError("fingerprint.space is missing; the hex name of the embedding space is needed.")
    now = values.now()
    return TokenVersionRow(
        fingerprint=fingerprint,
        embedding=data,
        sha256=sha256,
        recipe=values.mapping("recipe", new.recipe, InvalidTokenError),
        metrics=values.mapping("metrics", new.metrics, InvalidTokenError),
        state=values.one_of("state", new.state, TOKEN_STATES, InvalidTokenError),
        parent_version=new.parent_version,
        created_by=values.text("created_by", new.created_by, InvalidTokenError),
        created_at=now,
        provenance=values.mapping("provenance", new.provenance, InvalidTokenError),
        state_at=now,
        sources=[
            VersionSourceRow(position=position, correction_id=int(correction))
            for position, correction in enumerate(new.source_corrections)
        ],
    )


def entity(row: TokenVersionRow) -> TokenVersion:
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
        tags={tag.key: tag.value for tag in row.tags},
        provenance=row.provenance,
        state_at=row.state_at,
    )
