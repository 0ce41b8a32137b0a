"""Copies of a store: taken while it is in use, validated before they replace anything.

SQLite is copied by its own backup API into one file; PostgreSQL by ``pg_dump`` and ``pg_restore``, which must be installed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from token_store import schema
from token_store.contract import StoreError, StoreVersionError
from token_store.engine import Location, create_folder, locate, make_engine, translate
from token_store.schema import SchemaState

#: Tables without which a database is no store.
_OURS = {"alembic_version", "tokens", "token_versions"}


def backup(url_or_path: str | os.PathLike[str], target: Path) -> None:
    """Copy a store to a new file, as it is at one moment; writers go on meanwhile.

    Raises:
        StoreError: the store cannot be read, the target exists or cannot be written, or the copy is damaged.
    """
    location = locate(url_or_path)
    target = target.expanduser().absolute()
    if target.exists():
        raise StoreError(f"The backup's file {target} exists: name another one.")
    _check_openable(location)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        create_folder(target)
        if location.file is not None:
            _copy_sqlite(location.file, partial, location)
        else:
            _run_postgres("pg_dump", ["--format=custom", f"--file={partial}"], location)
        _sync(partial)
        os.replace(partial, target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(f"The backup {target} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def restore(source: Path, url_or_path: str | os.PathLike[str]) -> Path | None:
    """Put a backup in a store's place, after it was found whole, and bring it to this program's schema.

    What is there is copied first, beside it.  Returns that copy's path; None where nothing was there, or on PostgreSQL.

    Raises:
        StoreError: the backup is missing, damaged, of another program or a newer schema; nothing was changed then.
    """
    location = locate(url_or_path)
    source = source.expanduser().absolute()
    if not source.is_file():
        raise StoreError(f"The backup {source} is no file.")
    kept = None
    if location.file is not None:
        kept = _restore_sqlite(source, location)
    else:
        _restore_postgres(source, location)
    schema.upgrade(location)
    return kept


def validate(source: Path) -> str:
    """The schema revision of an SQLite backup that is whole and can be restored by this program.

    Raises:
        StoreError: it is not.
    """
    try:
        with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            broken = connection.execute("PRAGMA foreign_key_check").fetchone()
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = (
                connection.execute("SELECT version_num FROM alembic_version").fetchone() if tables >= _OURS else None
            )
    except sqlite3.Error as error:
        raise translate(error, locate(source)) from error
    if verdict != "ok":
        raise StoreError(f"The backup {source} is damaged: {verdict}.")
    if broken is not None:
        raise StoreError(f"The backup {source} is incomplete: its table {broken[0]} refers to rows that do not exist.")
    if found is None:
        raise StoreError(f"The backup {source} holds no store: it belongs to another program.")
    return _known_revision(source, str(found[0]))


def _known_revision(source: Path, revision: str) -> str:
    """Raises StoreVersionError: the backup's schema is newer than this program."""
    if revision not in schema.revisions():
        raise StoreVersionError(
            f"The backup {source} has schema {revision}, newer than this program's {schema.head()}: "
            "type `pip install --upgrade ovam-labeler`."
        )
    return revision


def _restore_sqlite(source: Path, location: Location) -> Path | None:
    assert location.file is not None
    validate(source)
    if source == location.file:
        raise StoreError(f"The backup {source} is the database itself.")
    kept = None
    if location.file.exists():
        kept = location.file.with_name(f"{location.file.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        _copy_sqlite(location.file, kept, location)
    create_folder(location.file)
    # Through SQLite, not over its file: another process that has the database open waits, then sees the restored one.
    _copy_sqlite(source, location.file, location)
    return kept


def _copy_sqlite(source: Path, target: Path, location: Location) -> None:
    """The backup API; the copy is one whole file without a log beside it."""
    try:
        with closing(sqlite3.connect(source, timeout=30)) as old, closing(sqlite3.connect(target, timeout=30)) as new:
            old.backup(new)
            if target != location.file:
                new.execute("PRAGMA journal_mode=DELETE")
                verdict = new.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise StoreError(f"The copy of {source} is damaged ({verdict}): the database itself may be.")
    except sqlite3.Error as error:
        raise translate(error, location) from error


def _restore_postgres(source: Path, location: Location) -> None:
    listed = _run_postgres("pg_restore", ["--list", str(source)], location)
    if " token_versions " not in listed or " alembic_version " not in listed:
        raise StoreError(f"The backup {source} holds no store: it lacks the table token_versions.")
    # As a script on stdout: the row of a COPY between its line and the end mark.
    script = _run_postgres(
        "pg_restore", ["--data-only", "--table=alembic_version", "--file=-", str(source)], location
    ).splitlines()
    begin = next((k for k, line in enumerate(script) if line.startswith("COPY ")), None)
    if begin is None or script[begin + 1 : begin + 2] in ([], ["\\."]):
        raise StoreError(f"The backup {source} holds no store: its table alembic_version is empty.")
    _known_revision(source, script[begin + 1].strip())
    arguments = ["--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error"]
    _run_postgres("pg_restore", [*arguments, f"--dbname={location.url.database}", str(source)], location)


def _run_postgres(program: str, arguments: Sequence[str], location: Location) -> str:
    """Run one of PostgreSQL's programs.  The password goes by environment: arguments are seen by every user."""
    found = shutil.which(program) or _debian(program)
    if found is None:
        raise StoreError(
            f"{program} is not installed: type `apt-get install postgresql-client`, or use your server's backup."
        )
    done = subprocess.run(
        [found, *arguments], env={**os.environ, **_environment(location)}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise StoreError(f"{program} failed on {location.shown}: {lines[0] if lines else 'no message'}.")
    return done.stdout


def _debian(program: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda p: -float(p.parents[1].name))
    return str(places[0]) if places else None


def _environment(location: Location) -> Mapping[str, str]:
    url = location.url
    given = {
        "PGHOST": url.host,
        "PGPORT": None if url.port is None else str(url.port),
        "PGUSER": url.username,
        "PGPASSWORD": None if url.password is None else str(url.password),
        "PGDATABASE": url.database,
    }
    return {name: value for name, value in given.items() if value}


def _check_openable(location: Location) -> None:
    """Refuse to copy what is no store: a backup nobody can restore is worse than none."""
    if location.file is not None and not location.file.is_file():
        raise StoreError(f"There is no database at {location.shown}.")
    engine = make_engine(location)
    try:
        with engine.connect() as connection:
            found = schema.state(connection)
            if found not in (SchemaState.CURRENT, SchemaState.OLDER):
                raise schema.refusal(connection, location) or StoreError(f"{location.shown} holds no store.")
    except (sqlite3.Error, DBAPIError) as error:
        raise translate(error, location) from error
    finally:
        engine.dispose()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
