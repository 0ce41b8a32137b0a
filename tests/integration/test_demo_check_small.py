"""``demo --headless`` in small, over the real Label Studio: the whole loop, its report and its clean end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ovam_labeler.demo import label_studio_process
from ovam_labeler.demo.headless import run_headless
from ovam_labeler.demo.scenes import Plan
from ovam_labeler.settings import Settings

pytestmark = [pytest.mark.real_label_studio, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(novel=2, known=2, corrections=2, tests=2)


@pytest.fixture
def started(monkeypatch):
    """The Label Studio processes that the run starts."""
    pids: list[int] = []
    spawn = label_studio_process.LabelStudio._spawn

    def remember(self, command):
        spawn(self, command)
        pids.append(self.pid)

    monkeypatch.setattr(label_studio_process.LabelStudio, "_spawn", remember)
    return pids


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_small_session_ends_with_a_complete_report(tmp_path: Path, started: list[int], monkeypatch):
    monkeypatch.chdir(ROOT)  # where Label Studio's environment is found
    settings = Settings(data_dir=tmp_path / "data", _env_file=None)
    assert run_headless(settings, tmp_path / "report", 1, PLAN) == 0

    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["seed"] == 1
    assert [c["has_word"] for c in report["concepts"]] == [False, False, True, True]
    for row in report["concepts"]:
        assert row["images"] == 2
        assert all(0 <= row[f] <= 1 for f in ("before", "after", "after3", "wrong_token", "foreground"))
        # Learned by the real loop: with a single correction the token is what the product uses.
        assert row["uses"]["after"] == "token"
        assert set(row["served"]) == {"before", "after", "after3"}
    assert report["generated"]["images"] > 0
    assert report["generated"]["unet_passes"] == 0
    assert report["generated"]["judge_iou_on_composed"] > 0.3
    low, high = report["lift_ci"]
    assert low <= high
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(row["name"] in page for row in report["concepts"])

    assert started, "a real Label Studio was started"
    assert not [pid for pid in started if alive(pid)], "every process that was started has ended"
