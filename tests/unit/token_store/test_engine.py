"""Where a store may live, how its connections are set up, what database errors become."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event

from token_store import engine, open_store
from token_store.contract import InvalidTokenError, StoreError, StoreFullError
from token_store.entities import CorrectionMask, NewCorrection, NewTokenVersion, Scope
from token_store.sqlalchemy_store import SqlAlchemyStore

SCOPE = Scope("default", "1")
NEW = NewTokenVersion({"space": "a"}, np.ones((2, 768), np.float32), {}, {})
CORRECTION = NewCorrection(SCOPE, "1", "2026-01-01T00:00:00Z", "1", "x.png", {"big": "x" * 50_000}, ("cat",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlAlchemyStore]:
    opened = open_store(tmp_path / "a.db")
    yield opened
    opened.close()


def test_folders_are_created_and_urls_understood(tmp_path: Path) -> None:
    for place in (tmp_path / "new" / "folder" / "a b%20.db", f"sqlite:///{tmp_path}/other/x.db"):
        opened = open_store(place)
        opened.add_version(SCOPE, "cat", NEW)
        assert opened.check() == []
        opened.close()
    assert (tmp_path / "new" / "folder" / "a b%20.db").is_file()
    assert (tmp_path / "other" / "x.db").is_file()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("mysql://u:secret@h/d", "not supported"),
        ("postgresql+asyncpg://u:secret@h/d", "not supported"),
        ("://", "malformed"),
        ("/", "is a folder"),
        ("/dev/null/x.db", "cannot be created"),
    ],
)
def test_impossible_places(place: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_store(place)
    assert "secret" not in str(caught.value)


def test_password_is_never_shown() -> None:
    location = engine.locate("postgresql://ann:secret@127.0.0.1:1/store")
    assert location.url.drivername == "postgresql+psycopg"
    assert "secret" not in location.shown
    assert "secret" not in str(engine.translate(sqlite3.OperationalError("lost"), location))


def test_every_connection_is_durable(store: SqlAlchemyStore) -> None:
    seen = []

    @event.listens_for(store._engine, "checkout")
    def look(connection: sqlite3.Connection, *_: object) -> None:
        seen.append(
            tuple(
                connection.execute(f"PRAGMA {pragma}").fetchone()[0]
                for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            )
        )

    threads = [threading.Thread(target=store.list_tokens) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.add_version(SCOPE, "cat", NEW)
    assert len(seen) >= 5
    assert set(seen) == {("wal", 2, 1, engine.BUSY_TIMEOUT_MS)}


def test_check_notices_weak_settings_and_broken_references(store: SqlAlchemyStore, tmp_path: Path) -> None:
    store.add_version(SCOPE, "cat", NEW)

    @event.listens_for(store._engine, "checkout")
    def weaken(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("DELETE FROM tokens")
    connection.close()
    problems = store.check()
    assert any("synchronous 1 instead of 2" in problem for problem in problems)
    assert any("token_versions" in problem for problem in problems)
    assert len(problems) == 2


def test_writer_waits_for_another_process_and_then_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 300)
    store = open_store(tmp_path / "a.db")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.add_version(SCOPE, "cat", NEW)
    assert store.list_tokens() == []  # readers do not wait
    release = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    release.start()
    assert store.add_version(SCOPE, "cat", NEW).number == 1
    release.join()
    other.close()
    store.close()


def test_full_database_writes_nothing_and_recovers(store: SqlAlchemyStore) -> None:
    kept = store.add_correction(CORRECTION)[0]
    store.add_version(SCOPE, "cat", NEW, aliases=["active"])
    limit = {"pages": 1}

    @event.listens_for(store._engine, "checkout")
    def bound(connection: sqlite3.Connection, *_: object) -> None:
        # SQLite keeps the limit at the pages in use at least: no room is left at all.
        connection.execute(f"PRAGMA max_page_count={limit['pages']}")

    last = 1
    with pytest.raises(StoreFullError, match="full"):
        while last < 200:
            last = store.add_version(SCOPE, "cat", NEW, aliases=["active"]).number
    with pytest.raises(StoreFullError):
        store.add_correction(NewCorrection(SCOPE, "2", "u", "1", "x", {"big": "y" * 100_000}, ("cat",)))
    assert store.list_corrections(SCOPE) == [kept]
    assert len(store.list_jobs()) == 1
    numbers = [version.number for version in store.list_versions(SCOPE, "cat")]
    assert numbers == list(range(1, last + 1))
    assert store.get_version(SCOPE, "cat", "active").number == numbers[-1]
    limit["pages"] = 1_000_000
    assert store.add_version(SCOPE, "cat", NEW).number == numbers[-1] + 1
    assert store.check() == []


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError, match=r"a\.db is damaged"):
        open_store(path)
    good = tmp_path / "b.db"
    store = open_store(good)
    for _ in range(20):
        store.add_version(SCOPE, "cat", NEW)
    store.close()
    with sqlite3.connect(good) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'token_versions'").fetchone()
    connection.close()
    content = bytearray(good.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    good.write_bytes(content)
    broken = open_store(good)
    assert any("damaged" in problem for problem in broken.check())
    with pytest.raises(StoreError, match="damaged"):
        broken.add_version(SCOPE, "cat", NEW)
    broken.close()


READ_ONLY = """
import os, sys
from token_store import open_store
from token_store.contract import StoreError
from token_store.entities import ImageRecord
if os.getuid() == 0:
    import token_store.sqlalchemy_store  # imported while the environment can be read
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    store = open_store(sys.argv[1])
    store.put_image(ImageRecord("a", "received", 1, 1))
except StoreError as error:
    print(error)
"""


def test_read_only_database_is_named() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        open_store(folder / "a.db").close()
        (folder / "a.db").chmod(0o444)
        folder.chmod(0o555)
        command = [sys.executable, "-c", READ_ONLY, str(folder / "a.db")]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=os.getcwd(), check=True)
        assert "read-only" in answer.stdout
        assert "allow this user to write" in answer.stdout
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_tampered_rows_are_refused_by_name(store: SqlAlchemyStore, tmp_path: Path) -> None:
    store.add_version(SCOPE, "cat", NEW, aliases=["active"])
    store.add_version(SCOPE, "dog", NEW, aliases=["active"])
    known = store.add_correction(CORRECTION)[0].id
    mask = np.ones((9, 9), bool)
    store.put_correction_masks([CorrectionMask(known, "cat", "positive", mask, ~mask)])
    with sqlite3.connect(tmp_path / "a.db") as connection:
        (data,) = connection.execute("SELECT embedding FROM token_versions WHERE id = 1").fetchone()
        swapped = data[:-4] + b"\0\0\0@"
        connection.execute("UPDATE token_versions SET embedding = ? WHERE id = 1", (swapped,))
        connection.execute("UPDATE correction_masks SET height = 10, width = 8")
    connection.close()
    for read in (
        lambda: store.get_version(SCOPE, "cat", 1),
        lambda: store.find_active(SCOPE, ["cat", "dog"]),
        lambda: store.list_versions(SCOPE, "cat"),
    ):
        with pytest.raises(InvalidTokenError, match="Version 1 of token 'cat'.*sha256"):
            read()
    assert store.get_version(SCOPE, "dog", 1).number == 1
    with pytest.raises(StoreError, match="mask"):
        store.correction_masks([known])
