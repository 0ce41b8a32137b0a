"""``ovam-labeler db``: upgrade, check, backup and restore from the command line, with exit codes and JSON."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ovam_labeler.cli.main import app as cli
from ovam_labeler.errors import NotConfirmedError, OvamError
from token_store import open_store
from token_store.entities import NewTokenVersion, Scope

SCOPE = Scope.everywhere()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVAM_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "ovam.sqlite3"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["db", *arguments])


def add(path: Path, value: float) -> None:
    store = open_store(path)
    new = NewTokenVersion({"space": "a"}, np.full((2, 3), value, np.float32), {}, {})
    store.add_version(SCOPE, "cat", new, aliases=("active",))
    store.close()


def test_upgrade_makes_the_database_and_check_finds_it_well(path: Path) -> None:
    refused = run("check")
    assert isinstance(refused.exception, OvamError) and "db upgrade" in str(refused.exception)
    assert run("upgrade").exit_code == 0 and path.is_file()
    assert "whole, current and durable" in run("check").output
    assert json.loads(run("check", "--json").output) == {"ok": True, "problems": []}


def test_check_of_a_broken_reference_exits_with_one(path: Path) -> None:
    add(path, 1)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM tokens")
    connection.close()
    found = run("check", "--json")
    assert found.exit_code == 1 and "rows that do not exist" in json.loads(found.stdout)["problems"][0]


def test_backup_and_restore(path: Path, tmp_path: Path) -> None:
    add(path, 1)
    assert json.loads(run("backup", str(tmp_path / "copy"), "--json").output)["bytes"] > 0
    assert "exists" in str(run("backup", str(tmp_path / "copy")).exception)
    add(path, 2)
    for arguments in ((), ("--json",)):
        asked = run("restore", str(tmp_path / "copy"), *arguments)
        assert isinstance(asked.exception, NotConfirmedError) and asked.exception.exit_code == 3
        assert "--yes" in str(asked.exception) and open_store(path).get_version(SCOPE, "cat", "active").number == 2
    done = json.loads(run("restore", str(tmp_path / "copy"), "--yes", "--json").output)
    assert Path(done["kept"]).is_file()
    assert open_store(path).get_version(SCOPE, "cat", "active").number == 1
