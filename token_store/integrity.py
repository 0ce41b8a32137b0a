"""What a database cannot know of its own content: bytes against their sha256, and the registry's own rules.

Read in pieces by key, so that memory stays bounded; a correction or a version is never loaded whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from token_store.entities import Scope
from token_store.tables import CorrectionMaskRow, TokenRow, TokenVersionRow

#: Rows read at once, and damaged ones that are named.
_ROWS, _NAMED = 500, 5


def problems(connection: Connection) -> list[str]:
    """One sentence for each kind of damage; empty when all is well."""
    found = [
        _told("embedding", [f"version {n} of {name!r} ({scope})" for name, scope, n in _bad_embeddings(connection)]),
        _told("mask", [f"{label!r} of correction {number}" for number, label in _bad_masks(connection)]),
    ]
    counted = select(func.max(TokenVersionRow.number)).where(TokenVersionRow.token_id == TokenRow.id).scalar_subquery()
    behind = connection.execute(select(TokenRow.class_name).where(TokenRow.last_number < counted)).scalars().all()
    if behind:
        found.append(
            f"The token {behind[0]!r} has versions with higher numbers than it ever gave: the next one could get a number "
            "that was given already."
        )
    return [sentence for sentence in found if sentence]


def _bad_embeddings(connection: Connection) -> Iterator[tuple[str, Scope, int]]:
    version, token = TokenVersionRow, TokenRow
    query = select(
        version.id, version.embedding, version.sha256, token.class_name, token.connection, token.project, version.number
    ).join(token, token.id == version.token_id)
    after = 0
    while rows := connection.execute(query.where(version.id > after).order_by(version.id).limit(_ROWS)).all():
        after = rows[-1][0]
        for row in rows:
            if _differs(row[1], row[2]):
                yield row[3], Scope(row[4], row[5]), row[6]


def _bad_masks(connection: Connection) -> Iterator[tuple[int, str]]:
    mask = CorrectionMaskRow
    query = select(mask.correction_id, mask.label, mask.masks, mask.sha256)
    after = 0
    while True:
        # A correction's masks are read together: its few labels are no key to go on from.
        query_part = select(mask.correction_id).where(mask.correction_id > after).distinct()
        numbers = connection.execute(query_part.order_by(mask.correction_id).limit(_ROWS // 10)).scalars().all()
        if not numbers:
            return
        rows = connection.execute(query.where(mask.correction_id > after, mask.correction_id <= numbers[-1])).all()
        after = numbers[-1]
        for row in rows:
            if _differs(row[2], row[3]):
                yield row[0], row[1]


def _differs(data: bytes, sha256: str) -> bool:
    return hashlib.sha256(data).hexdigest() != sha256


def _told(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"The {what} of {', '.join(names[:_NAMED])}{more} does not match its sha256: it is refused wherever it is used; "
        "restore a backup."
    )
