"""Transactions of the SQL store: who may write when, and how a database error reaches the caller."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from token_store.contract import InvalidValueError, StoreError
from token_store.engine import WRITES, Location, translate
from token_store.sql.values import now
from token_store.tables import AuditRow


class SqlTransactions:
    """What every part of the store shares: its engine and its two kinds of transaction."""

    def __init__(self, location: Location, engine: Engine) -> None:
        self._location = location
        self._engine = engine
        self._writer = engine.execution_options(**{WRITES: True})
        # Several SELECTs of one method see one moment: SQLite's WAL does so by itself.
        self._reader = engine if location.file else engine.execution_options(isolation_level="REPEATABLE READ")
        # SQLite lets one writer in at a time and wakes waiters by polling; a lock queues this process's threads.
        self._turn = threading.Lock() if location.file else nullcontext()
        self._process = os.getpid()
        self._closed = False

    @contextmanager
    def _read(self) -> Iterator[Session]:
        self._check_usable()
        with self._transaction(self._reader) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        """Committed (on the disk) when the block ends, rolled back when it raises."""
        self._check_usable()
        with self._turn, self._transaction(self._writer) as session:
            yield session

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError(f"The store {self._location.shown} is closed.")
        if os.getpid() != self._process:
            # SQLite's locks and a server's socket do not survive fork().
            raise StoreError(f"The store {self._location.shown} was opened before a fork: open it in each process.")

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Session]:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (DBAPIError, sqlite3.Error) as error:
            raise translate(error, self._location) from error
        except (OverflowError, UnicodeEncodeError) as error:
            # A number over 64 bits, half a surrogate pair: no stored value is like that, so nothing can match it.
            raise InvalidValueError(f"A value cannot be put to the database: {error}.") from error
        except PoolTimeoutError as error:
            raise StoreError(f"The database {self._location.shown} is busy: no connection became free.") from error

    def _queue_up(self, session: Session, *key: object) -> None:
        """Let one transaction at a time pass for ``key``.  SQLite's writers already hold the only write lock."""
        if session.get_bind().dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
            session.execute(lock, {"key": "\x1f".join(map(str, key))})

    @staticmethod
    def _record(session: Session, *, who: str, what: str, why: str, details: Mapping[str, Any]) -> None:
        """Add a line to the audit log, in the transaction of what it tells; ``details`` name what it is about."""
        about = {key: str(details.get(key, "")) for key in ("connection", "project", "class_name")}
        session.add(AuditRow(at=now(), who=who, what=what, why=why, details=dict(details), **about))
