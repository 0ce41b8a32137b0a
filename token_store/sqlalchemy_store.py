"""The token store on SQL: SQLite in one file, or PostgreSQL.  :func:`open_store` is the way in."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from token_store import integrity, schema
from token_store.engine import BUSY_TIMEOUT_MS, create_folder, locate, make_engine, translate
from token_store.sql.aliases import SqlAliases
from token_store.sql.bundles import SqlBundles
from token_store.sql.corrections import SqlCorrections
from token_store.sql.following import SqlFollowing
from token_store.sql.jobs import SqlJobs
from token_store.sql.projects import SqlProjects
from token_store.sql.records import SqlRecords
from token_store.sql.search import SqlSearch
from token_store.sql.served import SqlServed
from token_store.sql.tidying import SqlTidying
from token_store.sql.tokens import SqlTokens

#: What each connection must say, by setting: (allowed values, what another one means for the user's data).
_SQLITE_MUST: dict[str, tuple[tuple[object, ...], str]] = {
    "journal_mode": (("wal",), "readers and writers would block each other"),
    "synchronous": ((2, 3), "an acknowledged correction could be lost in a power cut"),
    "foreign_keys": ((1,), "rows could refer to rows that do not exist"),
    "busy_timeout": ((BUSY_TIMEOUT_MS,), "a second process could fail instead of waiting"),
}
_POSTGRES_MUST: dict[str, tuple[tuple[object, ...], str]] = {
    "fsync": (("on",), "an acknowledged correction could be lost in a power cut"),
    "synchronous_commit": (
        ("on", "local", "remote_write", "remote_apply"),
        "an acknowledged correction could be lost in a power cut",
    ),
}


class SqlAlchemyStore(
    SqlTokens,
    SqlBundles,
    SqlAliases,
    SqlSearch,
    SqlTidying,
    SqlCorrections,
    SqlJobs,
    SqlServed,
    SqlProjects,
    SqlRecords,
    SqlFollowing,
):
    """:class:`token_store.contract.TokenStore` through SQLAlchemy.  Made by :func:`open_store`."""

    def check(self, *, quick: bool = False) -> list[str]:
        """See :meth:`token_store.contract.TokenStore.check`."""
        self._check_usable()
        try:
            with self._engine.connect() as connection:
                refused = schema.refusal(connection, self._location)
                problems = [str(refused)] if refused else []
                ask, must = ("SHOW {}", _POSTGRES_MUST) if self._location.file is None else ("PRAGMA {}", _SQLITE_MUST)
                problems += self._check_settings(connection, ask, must)
                if quick or refused:
                    return problems
                damage = [] if self._location.file is None else self._check_sqlite_file(connection)
                return problems + (damage or integrity.problems(connection))
        except (DBAPIError, sqlite3.Error) as error:
            return [str(translate(error, self._location))]

    def _check_settings(
        self, connection: Connection, ask: str, must: Mapping[str, tuple[tuple[object, ...], str]]
    ) -> list[str]:
        problems = []
        for setting, (wanted, otherwise) in must.items():
            found = connection.exec_driver_sql(ask.format(setting)).scalar()
            if found not in wanted:
                problems.append(
                    f"The database {self._location.shown} has {setting} {found} instead of {wanted[0]}: {otherwise}."
                )
        return problems

    def _check_sqlite_file(self, connection: Connection) -> list[str]:
        verdicts = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
        problems = [
            f"The file {self._location.shown} is damaged ({verdict}): restore it from a backup."
            for verdict in verdicts
            if verdict != "ok"
        ]
        broken = {row[0] for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}
        return problems + [
            f"The table {table} of {self._location.shown} refers to rows that do not exist." for table in sorted(broken)
        ]

    def close(self) -> None:
        """Close all connections.  Methods raise StoreError afterwards; closing again does nothing."""
        self._closed = True
        self._engine.dispose()


def open_store(url_or_path: str | os.PathLike[str], *, migrate: bool = True) -> SqlAlchemyStore:
    """Open the store at a file path, ``sqlite:///path`` or ``postgresql://...``.

    Args:
        url_or_path: where it lives; a file and its folder are created when absent.
        migrate: create or upgrade the schema.  Safe when several processes open a new store at once.

    Raises:
        StoreVersionError: the schema is newer than this program, or (without ``migrate``) older or absent.
        StoreFullError: no room to create it.
        StoreError: not a store's database, damaged, read-only, locked, or an unsupported kind.
    """
    location = locate(url_or_path)
    if location.file is not None:
        create_folder(location.file)
    engine = make_engine(location)
    try:
        with engine.connect() as connection:
            refused = schema.refusal(connection, location)
        if refused is not None:
            if not migrate:
                raise refused
            schema.upgrade(location)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, DBAPIError | sqlite3.Error):
            raise translate(error, location) from error
        raise
    return SqlAlchemyStore(location, engine)
