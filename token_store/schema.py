"""Schema versions: bring a database to this program's schema, refuse one that is newer.

Migrations live in the folder ``migrations`` beside this package (a clone, an editable install, a wheel that ships it
there) or inside it (a wheel that keeps the top level clean); they are reached by path and never imported by name.
"""

from __future__ import annotations

import sys
import threading
from enum import Enum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from token_store.contract import StoreError, StoreVersionError
from token_store.engine import WRITES, Location, locate, make_engine
from token_store.tables import Base

_FIRST = Path("versions") / "0001_first_tables.py"
#: Alembic keeps the running migration in module globals: one at a time in a process.
_ALEMBIC = threading.Lock()
#: Any number, the same for every process: the advisory lock of PostgreSQL under which a schema changes.
_POSTGRES_LOCK = 0x4F56414D


def find_migrations() -> Path:
    """The folder of Alembic scripts.

    Raises:
        StoreError: the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / _FIRST).is_file():
            return folder
    raise StoreError(f"The migrations folder is missing beside {package}: reinstall ovam-labeler.")


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    # Interpolation would choke on a '%' in the path.
    config.set_main_option("script_location", str(find_migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    config.attributes["target_metadata"] = Base.metadata
    return config


def head() -> str:
    """The schema revision this program works with."""
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert revision is not None, "migrations/versions holds at least the first revision"
    return revision


def revisions() -> set[str]:
    """Every schema revision this program knows, the head included."""
    return {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}


def current(connection: Connection) -> str | None:
    """The database's schema revision, None when it is blank."""
    return MigrationContext.configure(connection).get_current_revision()


class SchemaState(Enum):
    BLANK = "blank"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"
    FOREIGN = "foreign"


def state(connection: Connection) -> SchemaState:
    """How the database's schema stands to this program's."""
    found = current(connection)
    if found is None:
        return SchemaState.FOREIGN if inspect(connection).get_table_names() else SchemaState.BLANK
    if found == head():
        return SchemaState.CURRENT
    return SchemaState.OLDER if found in revisions() else SchemaState.NEWER


def refusal(connection: Connection, location: Location) -> StoreError | None:
    """Why this program cannot work with the database's schema as it is, and what to type; None when it can."""
    match state(connection):
        case SchemaState.CURRENT:
            return None
        case SchemaState.FOREIGN:
            return StoreError(f"The database {location.shown} belongs to another program: choose another file.")
        case SchemaState.BLANK:
            return StoreVersionError(
                f"The database {location.shown} is empty: type `ovam-labeler db upgrade`, which creates it."
            )
        case SchemaState.OLDER:
            return StoreVersionError(
                f"The database {location.shown} has schema {current(connection)}, older than this program's {head()}: "
                "type `ovam-labeler db upgrade`."
            )
        case SchemaState.NEWER:
            return StoreVersionError(
                f"The database {location.shown} has schema {current(connection)}, newer than this program's {head()}: "
                "type `pip install --upgrade ovam-labeler`, or restore a backup made by this version."
            )


def upgrade(location: Location) -> None:
    """Bring the database to :func:`head` in one transaction; several processes may do so at once.

    Raises:
        StoreVersionError: the database is newer than this program.
        StoreError: it belongs to another program, or a migration breaks a reference.
    """
    engine = make_engine(location, for_migration=True)
    with _ALEMBIC, engine.execution_options(**{WRITES: True}).begin() as connection:
        if location.file is None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
        # Looked at under the write lock: another process may just have finished the same upgrade.
        if state(connection) not in {SchemaState.BLANK, SchemaState.OLDER}:
            refused = refusal(connection, location)
            if refused is not None:
                raise refused
            return
        command.upgrade(alembic_config(connection), "head")
        if location.file is not None:
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            if broken is not None:
                raise StoreError(f"Upgrading {location.shown} would break a reference in table {broken[0]}.")


def new_revision(message: str, scratch: Path) -> None:
    """For developers: write the next migration from the difference between the tables and a fresh database."""
    location = locate(scratch)
    upgrade(location)
    number = len(list(ScriptDirectory.from_config(alembic_config()).walk_revisions())) + 1
    with make_engine(location, for_migration=True).connect() as connection:
        command.revision(alembic_config(connection), message, autogenerate=True, rev_id=f"{number:04d}")


if __name__ == "__main__":
    import tempfile

    if len(sys.argv) != 3 or sys.argv[1] != "revision":
        sys.exit('Type: python -m token_store.schema revision "what changed"')
    with tempfile.TemporaryDirectory() as folder:
        try:
            new_revision(sys.argv[2], Path(folder) / "scratch.sqlite3")
        except (StoreError, SQLAlchemyError) as error:
            sys.exit(str(error))
