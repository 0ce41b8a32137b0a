from __future__ import annotations

import json
from pathlib import Path

import pytest
from colour_model import box
from cvat_server import TOKEN, CvatTask
from typer.testing import CliRunner

from ovam_labeler.cli.main import app
from ovam_labeler.errors import BadRequestError, FetchError
from ovam_labeler.tools.cvat import masks


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVAM_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_pull_stores_and_leaves_learning_to_a_server(url: str, task: CvatTask) -> None:
    task.draw(1, "thing", masks.encode(box(16, 16, 24, 32)))
    arguments = ["cvat", "pull", "1", "--url", url, "--project", "12", "--no-learn"]
    first = CliRunner().invoke(app, [*arguments, "--json"])
    assert first.exit_code == 0, first.output
    (stored,) = json.loads(first.stdout)["stored"]
    assert (stored["frame"], stored["labels"], stored["state"]) == ("1@1", ["thing"], "pending")
    again = CliRunner().invoke(app, arguments)
    assert "0 corrections stored, 1 unchanged, 0 taken back." in again.stdout


def test_a_refused_token_an_unknown_task_and_no_server_are_one_sentence(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task, address, token, said in (
        ("2", url, TOKEN, "answered 404"),
        ("1", url, "wrong", "answered 401"),
        ("1", "http://127.0.0.1:9", TOKEN, "not reachable"),
    ):
        monkeypatch.setenv("CVAT_ACCESS_TOKEN", token)
        result = CliRunner().invoke(app, ["cvat", "pull", task, "--url", address, "--no-learn"])
        assert isinstance(result.exception, FetchError) and said in str(result.exception), result.output


def test_without_a_token_the_command_says_where_one_goes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CVAT_ACCESS_TOKEN")
    result = CliRunner().invoke(app, ["cvat", "pull", "1", "--url", url])
    assert isinstance(result.exception, BadRequestError) and "CVAT_ACCESS_TOKEN" in str(result.exception)
