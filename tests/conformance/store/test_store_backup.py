"""Backup and restore on both databases: what comes back is what was there; what is no backup changes nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from sqlalchemy import text
from token_store_samples import PROJECT, correction, version

from token_store import backup as copies
from token_store import open_store
from token_store.contract import StoreError, StoreVersionError
from token_store.engine import locate, make_engine


def filled(url: str) -> None:
    store = open_store(url)
    store.add_version(PROJECT, "cat", version(1), aliases=["active"])
    store.add_correction(correction())
    store.close()


def test_restored_elsewhere_it_is_the_same_store(new_database: Callable[[], str], tmp_path: Path) -> None:
    store_url, elsewhere = new_database(), new_database()
    filled(store_url)
    copies.backup(store_url, tmp_path / "copies" / "a.backup")
    assert copies.restore(tmp_path / "copies" / "a.backup", elsewhere) is None
    before, after = open_store(store_url), open_store(elsewhere)
    assert after.check() == []
    old, new = before.get_version(PROJECT, "cat", "active"), after.get_version(PROJECT, "cat", "active")
    assert (new.id, new.sha256, new.created_at) == (old.id, old.sha256, old.created_at)
    assert after.list_corrections(PROJECT) == before.list_corrections(PROJECT)
    assert after.list_jobs() == before.list_jobs() and after.audit() == before.audit()
    assert after.add_version(PROJECT, "cat", version(2)).number == 2
    before.close()
    after.close()


def test_what_came_after_the_backup_is_gone_again(store_url: str, tmp_path: Path) -> None:
    filled(store_url)
    copies.backup(store_url, tmp_path / "a.backup")
    store = open_store(store_url)
    store.add_version(PROJECT, "cat", version(2), aliases=["active"])
    store.close()
    kept = copies.restore(tmp_path / "a.backup", store_url)
    store = open_store(store_url)
    assert store.get_version(PROJECT, "cat", "active").number == 1
    assert store.check() == []
    store.close()
    if kept is not None:
        old = open_store(kept)
        assert old.get_version(PROJECT, "cat", "active").number == 2
        old.close()
    assert (kept is not None) == ("://" not in store_url)


def test_a_backup_under_writes_is_one_moment(store_url: str, tmp_path: Path) -> None:
    filled(store_url)
    writer, stop = open_store(store_url), threading.Event()

    def write() -> None:
        while not stop.is_set():
            writer.add_version(PROJECT, "cat", version(3), aliases=["active"])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        copies.backup(store_url, tmp_path / "a.backup")
    finally:
        stop.set()
        thread.join()
    writer.close()
    copies.restore(tmp_path / "a.backup", store_url)
    store = open_store(store_url)
    numbers = [v.number for v in store.list_versions(PROJECT, "cat")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert store.get_version(PROJECT, "cat", "active").number == numbers[-1]
    assert store.check() == []
    store.close()


def test_what_is_no_backup_changes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    filled(str(store))
    before = store.read_bytes()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE task (id INTEGER)")
    connection.close()
    copies.backup(store, tmp_path / "newer.db")
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    copies.backup(store, tmp_path / "damaged.db")
    data = bytearray((tmp_path / "damaged.db").read_bytes())
    data[8192:12288] = b"\xff" * 4096
    (tmp_path / "damaged.db").write_bytes(data)
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at " * 9)
    for name, sentence in (
        ("missing.db", "is no file"),
        ("other.db", "another program"),
        ("newer.db", "newer than"),
        ("damaged.db", "damaged"),
        ("text.db", "damaged or no SQLite"),
    ):
        with pytest.raises(StoreError, match=sentence):
            copies.restore(tmp_path / name, store)
    assert store.read_bytes() == before
    assert not list(tmp_path.glob("store.db.before*"))


def test_a_newer_program_s_backup_changes_nothing_on_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database() as url, postgres.database() as newer:
        filled(url)
        filled(newer)
        engine = make_engine(locate(newer))
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text("DELETE FROM token_aliases"))
        copies_file = tmp_path / "newer.backup"
        engine.dispose()
        dumped = copies._run_postgres("pg_dump", ["--format=custom", f"--file={copies_file}"], locate(newer))
        assert dumped == ""
        with pytest.raises(StoreVersionError, match="schema 9999, newer than"):
            copies.restore(copies_file, url)
        (tmp_path / "text").write_text("no backup at all")
        with pytest.raises(StoreError, match="pg_restore failed"):
            copies.restore(tmp_path / "text", url)
        store = open_store(url)
        assert store.get_version(PROJECT, "cat", "active").number == 1
        store.close()


def test_backup_refuses_to_overwrite_and_what_is_no_store(tmp_path: Path) -> None:
    filled(str(tmp_path / "store.db"))
    (tmp_path / "there").touch()
    with pytest.raises(StoreError, match="exists"):
        copies.backup(tmp_path / "store.db", tmp_path / "there")
    with pytest.raises(StoreError, match="no database"):
        copies.backup(tmp_path / "nothing.db", tmp_path / "copy")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE task (id INTEGER)")
    connection.close()
    with pytest.raises((StoreError, StoreVersionError), match="another program"):
        copies.backup(tmp_path / "other.db", tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*")) and not list(tmp_path.glob(".*partial"))


def test_a_postgres_password_is_on_no_command_line(
    postgres: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def run(command: list[str], **options: object) -> object:
        seen.append((command, options["env"]))
        raise OSError("stopped here")

    monkeypatch.setattr(copies.subprocess, "run", run)
    location = copies.locate("postgresql://ann:sesame@db.example:5433/store")
    with pytest.raises(OSError):
        copies._run_postgres("pg_dump", ["--format=custom"], location)
    ((command, environment),) = seen
    assert "sesame" not in " ".join(command)
    assert environment["PGPASSWORD"] == "sesame" and environment["PGPORT"] == "5433"  # type: ignore[index]
