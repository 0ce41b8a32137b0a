"""Schema: blank to head equals the models, old to new keeps the data, newer and foreign databases are refused."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from token_store import open_store, schema
from token_store.contract import StoreError, StoreVersionError
from token_store.entities import NewTokenVersion, Scope
from token_store.tables import Base

SCOPE = Scope("default", "1")
HEAD = schema.head()
NEXT = f"{int(HEAD) + 1:04d}"
NEW = NewTokenVersion({"space": "a"}, np.ones((2, 3), np.float32), {}, {}, (5, 6))


def statements(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    ours = {name: sql for name, sql in rows if name not in {"alembic_version", "sqlite_sequence"}}
    # A table that a migration rebuilt was renamed, and SQLite then quotes its name.
    return {name: re.sub(r"\s+", " ", sql).replace(f'TABLE "{name}"', f"TABLE {name}") for name, sql in ours.items()}


def columns_of(sql: str) -> tuple[str, ...]:
    """Parts of a CREATE TABLE in any order: constraints may be written in another one."""
    return tuple(sorted(part.strip(" ()") for part in re.split(r", (?![^(]*\))", sql)))


def test_blank_to_head_is_what_the_models_say(tmp_path: Path) -> None:
    open_store(tmp_path / "migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    Base.metadata.create_all(engine)
    engine.dispose()
    migrated, models = statements(tmp_path / "migrated.db"), statements(tmp_path / "models.db")
    assert set(migrated) == set(models)
    assert {name: columns_of(sql) for name, sql in migrated.items()} == {n: columns_of(s) for n, s in models.items()}


def test_autogenerate_finds_no_difference(tmp_path: Path) -> None:
    open_store(tmp_path / "a.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == schema.head()
    engine.dispose()


def test_every_constraint_has_a_name() -> None:
    for table in Base.metadata.tables.values():
        for constraint in [*table.constraints, *table.indexes]:
            assert constraint.name
            assert len(str(constraint.name)) <= 63  # PostgreSQL cuts longer ones


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_store(path).close()
    before = path.read_bytes()
    store = open_store(str(path), migrate=False)
    assert store.check() == []
    store.close()
    assert path.read_bytes() == before


def test_without_migrate_a_blank_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreVersionError, match="type `ovam-labeler"):
        open_store(tmp_path / "a.db", migrate=False)
    open_store(tmp_path / "a.db").close()


def test_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for migrate in (True, False):
        with pytest.raises(StoreVersionError, match=r"9999, newer than .* type `pip install --upgrade"):
            open_store(path, migrate=migrate)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "label_studio.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE task (id INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        open_store(path)
    assert list(statements(path)) == ["task"]


@pytest.fixture
def next_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations, to which a test adds a later one; the program still finds the copy by path."""
    folder = tmp_path / "100% later migrations"
    shutil.copytree(schema.find_migrations(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    open_store(tmp_path / "a.db").close()
    store = open_store(tmp_path / "a.db")
    for _ in range(2):
        store.add_version(SCOPE, "cat", NEW, aliases=["active"])
    store.close()
    monkeypatch.setattr(schema, "find_migrations", lambda: folder)
    return folder / "versions" / f"{NEXT}_later.py"


def migration(body: str) -> str:
    return (
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision, branch_labels, depends_on = '{NEXT}', '{HEAD}', None, None\n\ndef upgrade():\n{body}"
    )


def test_old_head_to_new_head_keeps_what_refers_to_a_rebuilt_table(tmp_path: Path, next_migration: Path) -> None:
    next_migration.write_text(
        migration(
            "    for table in ('tokens', 'token_versions'):\n"
            "        with op.batch_alter_table(table, recreate='always') as batch:\n"
            "            batch.add_column(sa.Column('colour', sa.Text(), nullable=False, server_default='red'))\n"
        )
    )
    with pytest.raises(StoreVersionError, match=rf"{HEAD}, older than .* type"):
        open_store(tmp_path / "a.db", migrate=False)
    store = open_store(tmp_path / "a.db")
    assert store.get_version(SCOPE, "cat", "active").number == 2
    assert store.get_version(SCOPE, "cat", 1).source_corrections == (5, 6)
    assert store.add_version(SCOPE, "cat", NEW).number == 3
    assert store.check() == []
    store.close()


@pytest.mark.parametrize(
    "failure",
    [
        "    raise RuntimeError('half way')\n",
        "    op.execute('PRAGMA defer_foreign_keys=ON')\n    op.execute('DELETE FROM tokens')\n",
    ],
)
def test_failed_migration_leaves_the_old_schema(tmp_path: Path, next_migration: Path, failure: str) -> None:
    next_migration.write_text(migration("    op.create_table('half', sa.Column('id', sa.Integer()))\n" + failure))
    with pytest.raises((RuntimeError, StoreError), match="half way|would break"):
        open_store(tmp_path / "a.db")
    assert "half" not in statements(tmp_path / "a.db")
    next_migration.unlink()
    store = open_store(tmp_path / "a.db")
    assert [version.number for version in store.list_versions(SCOPE, "cat")] == [1, 2]
    store.close()


def test_missing_migrations_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "token_store"
    package.mkdir(parents=True)
    monkeypatch.setattr(schema, "__file__", str(package / "schema.py"))
    (tmp_path / "site-packages" / "migrations").mkdir()  # some other distribution's
    with pytest.raises(StoreError, match="reinstall"):
        schema.find_migrations()
    ours = package / "migrations" / "versions"
    ours.mkdir(parents=True)
    (ours / "0001_first_tables.py").touch()
    assert schema.find_migrations() == package / "migrations"


def test_next_revision_is_written_from_the_models(next_migration: Path, tmp_path: Path) -> None:
    schema.new_revision("nothing changed", tmp_path / "scratch.db")
    written = next_migration.parent / f"{NEXT}_nothing_changed.py"
    text = written.read_text()
    assert f"revision = '{NEXT}'" in text
    assert f"down_revision = '{HEAD}'" in text
    assert "op." not in text
    store = open_store(tmp_path / "a.db")
    assert store.check() == []
    store.close()
