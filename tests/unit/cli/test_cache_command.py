"""``ovam-labeler cache``: bytes of each need, damaged entries named, pruning keeps what jobs need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from backends.contract import Capture, CaptureInfo
from ovam_labeler.application import build_application
from ovam_labeler.capture_cache import CaptureKey
from ovam_labeler.cli.main import app as cli
from ovam_labeler.settings import Settings
from token_store.entities import NewCorrection, Scope


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("OVAM_DATA_DIR", str(tmp_path))
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    with build_application(settings) as app:
        for name in "ab":
            tensors = {"queries.one": torch.ones(100), "queries.two": torch.ones(50), "latents": torch.ones(25)}
            info = CaptureInfo("received", (3, 5), (2, 2), (50,))
            key = CaptureKey(name * 64, "received", "queries=1", {}, preset="exact")
            assert app.cache.put(key, Capture(info, tensors))
        damaged = CaptureKey("c" * 64, "received", "queries=1", {})
        app.cache.put(damaged, Capture(CaptureInfo("received", (3, 5), (2, 2), (50,)), {"queries.x": torch.ones(9)}))
        app.cache.path(damaged).write_bytes(b"nothing of the kind")
        app.store.add_correction(
            NewCorrection(Scope("default", "1"), "1", "2026-01-01", "", "r", {"image_sha256": "a" * 64}, ("x",))
        )
    return settings


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["cache", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_list(filled: Settings) -> None:
    found = json.loads(run("list", "--json"))
    assert found["bytes_by_need"] == {"queries": 2 * 600, "latents": 2 * 100}
    rows = {row["image"]: row for row in found["entries"]}
    assert rows["a" * 64]["pinned"] and not rows["b" * 64]["pinned"]
    assert rows["a" * 64]["bytes_by_need"] == {"queries": 600, "latents": 100}
    assert (rows["a" * 64]["preset"], rows["a" * 64]["damaged"], rows[None]["damaged"]) == ("exact", False, True)
    assert found["bytes"] == sum(row["bytes"] for row in found["entries"]) > found["pinned_bytes"] > 700
    text = run("list")
    assert "3 entries" in text and "damaged" in text and "yes" in text


def test_prune(filled: Settings) -> None:
    found = json.loads(run("prune", "--json"))
    assert found["entries"] == 2
    assert [row["image"] for row in json.loads(run("list", "--json"))["entries"]] == ["a" * 64]
