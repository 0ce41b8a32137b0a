"""Connections: where the database is, how SQLite is made durable, what a database error means to a user."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from token_store.contract import StoreError, StoreFullError

#: How long a writer waits for another process's transaction before giving up.
BUSY_TIMEOUT_MS = 30_000
#: Execution option: this connection's transactions write.
WRITES = "token_store_writes"

# A quota or a file size limit (EDQUOT, EFBIG) reaches us as "write failed", a full disk also as "WAL index too short".
_FULL_CODES = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
_POSTGRES_FULL = {"53100"}
_POSTGRES_DRIVERS = {"postgres", "postgresql", "postgresql+psycopg"}


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store lives.  ``file`` is None for a database server; ``shown`` never holds a password."""

    url: URL
    file: Path | None
    shown: str


def locate(url_or_path: str | os.PathLike[str]) -> Location:
    """Understand a file path, ``sqlite:///path`` or ``postgresql://user:password@host/name``.

    Raises:
        StoreError: another kind of database, an in-memory one, or a folder in the file's place.
    """
    text = os.fspath(url_or_path)
    if "://" not in text:
        return _file_location(Path(text))
    try:
        url = make_url(text)
    except ArgumentError:
        raise StoreError(
            "The database URL is malformed: give a file path, sqlite:///path or postgresql://..."
        ) from None
    if url.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not url.database or url.database == ":memory:" or url.query:
            raise StoreError(f"The database URL {text!r} must name a file, as in sqlite:////data/ovam.sqlite3.")
        return _file_location(Path(url.database))
    if url.drivername in _POSTGRES_DRIVERS:
        url = url.set(drivername="postgresql+psycopg")
        return Location(url, None, url.render_as_string(hide_password=True))
    raise StoreError(f"Database kind {url.drivername!r} is not supported: use sqlite or postgresql.")


def _file_location(path: Path) -> Location:
    path = path.expanduser().absolute()
    if path.is_dir():
        raise StoreError(f"The database path {path} is a folder: name a file in it.")
    return Location(URL.create("sqlite+pysqlite", database=str(path)), path, str(path))


def create_folder(file: Path) -> None:
    """Create the database's folder, durably: the folder's own name must survive a power cut too.

    Raises:
        StoreFullError, StoreError: the folder cannot be made.
    """
    missing = [folder for folder in file.parents if not folder.exists()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)
    except OSError as error:
        kind = StoreFullError if error.errno in {errno.ENOSPC, errno.EDQUOT} else StoreError
        raise kind(f"The database folder {file.parent} cannot be created: {error.strerror}.") from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_engine(location: Location, *, for_migration: bool = False) -> Engine:
    """An engine whose SQLite connections are durable (WAL, ``synchronous=FULL``) and check foreign keys.

    Args:
        for_migration: no pool, and foreign keys off: SQLite's batch migrations rebuild tables, and dropping the old
            one with foreign keys on would delete what refers to it.
    """
    if location.file is None:
        pool: dict[str, Any] = {"poolclass": NullPool} if for_migration else {"pool_pre_ping": True}
        return create_engine(location.url, hide_parameters=True, **pool)
    pool = {"poolclass": NullPool} if for_migration else {"pool_size": 8, "max_overflow": 56}
    engine = create_engine(
        location.url,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        **pool,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # The driver opens no transaction by itself: `begin` below says which kind.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _enter_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone leaves data in the drive's cache
        connection.execute(f"PRAGMA foreign_keys={'OFF' if for_migration else 'ON'}")
        connection.execute("PRAGMA trusted_schema=OFF")
        # SQLite's own lower() knows ASCII only.
        connection.create_function("lower", 1, lambda text: text.lower() if text else text, deterministic=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the write lock first: a transaction that reads, then writes, can fail half way (SQLITE_BUSY).
        immediate = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL.  Two first openers collide here and SQLite does not wait for the other by itself."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if _sqlite_code(error) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _sqlite_code(error: BaseException | None) -> int:
    """Extended result code of an error of SQLite, 0 if unknown."""
    return getattr(error, "sqlite_errorcode", None) or 0


def translate(error: Exception, location: Location) -> StoreError:
    """What a database error means, in one sentence without SQL or values."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code, text, where = _sqlite_code(cause), str(cause).splitlines()[0] if str(cause) else "", location.shown
    if code in _FULL_CODES or "disk is full" in text or getattr(cause, "sqlstate", "") in _POSTGRES_FULL:
        return StoreFullError(
            f"The disk or quota of the database {where} is full: nothing was written; free some space and try again."
        )
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_READONLY:
        return StoreError(f"The database {where} is read-only: allow this user to write to the file and its folder.")
    if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StoreError(f"The file {where} is damaged or no SQLite database: restore it from a backup.")
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreError(f"The database {where} was locked by another program for {BUSY_TIMEOUT_MS // 1000} seconds.")
    if primary == sqlite3.SQLITE_CANTOPEN:
        return StoreError(f"The database {where} cannot be opened: check that the folder exists and is accessible.")
    if primary == sqlite3.SQLITE_IOERR:
        return StoreError(f"The disk of the database {where} failed to read or write ({text}).")
    return StoreError(f"The database {where} failed: {text or type(error).__name__}.")
