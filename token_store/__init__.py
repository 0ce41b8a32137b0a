"""Token store: tokens, their versions, human corrections, jobs and provenance, kept in SQL.

Import light: :mod:`token_store.entities` and :mod:`token_store.contract` need no database library.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from token_store.sqlalchemy_store import SqlAlchemyStore


def open_store(url_or_path: str | os.PathLike[str], *, migrate: bool = True) -> SqlAlchemyStore:
    """Open (and by default create or upgrade) the store; see :func:`token_store.sqlalchemy_store.open_store`."""
    from token_store import sqlalchemy_store

    return sqlalchemy_store.open_store(url_or_path, migrate=migrate)
