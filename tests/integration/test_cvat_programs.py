"""CVAT's own program runs the function, ours pulls the correction, and the next masks are better: the embedded model.

The server stands for CVAT (no CVAT runs here); ``cvat-cli`` and the SDK are the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from server_process import ROOT
from studio_loop import loop_scenes

sys.path.append(str(ROOT / "tests" / "unit" / "cvat"))

from cvat_server import TOKEN, CvatTask, serving

from ovam_labeler.tools.cvat import masks

pytestmark = pytest.mark.slow


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[tuple[str, CvatTask, dict[str, str]]]:
    concept = loop_scenes().scenes[0].concept
    scenes = [scene for scene in loop_scenes().scenes if scene.concept == concept]
    task = CvatTask({scene.name: scene.image for scene in scenes}, [{"name": "défaut_07", "type": "any"}])
    task.truths = [scene.truth for scene in scenes]  # type: ignore[attr-defined]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("OVAM_")},
        "OVAM_DATA_DIR": str(tmp_path / "state"),
        "OVAM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "CVAT_ACCESS_TOKEN": TOKEN,
    }
    with serving(task) as url:
        yield url, task, environment


def run(module: str, *arguments: str, environment: dict[str, str], folder: Path) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def mean_iou(task: CvatTask) -> float:
    """Of the pictures that nothing was drawn on, by what the program uploaded."""
    found = []
    for frame, truth in enumerate(task.truths):  # type: ignore[attr-defined]
        if frame == 0:
            continue
        mask = np.zeros_like(truth)
        for shape in task.shapes:
            if shape["frame"] == frame:
                mask |= masks.decode(shape["points"], *truth.shape)
        found.append(float((mask & truth).sum() / max(1, (mask | truth).sum())))
    return float(np.mean(found))


def test_annotate_correct_one_mask_pull_and_annotate_again(
    stage: tuple[str, CvatTask, dict[str, str]], tmp_path: Path
) -> None:
    url, task, environment = stage
    annotate = (
        "--server-host", url, "task", "auto-annotate", "1", "--clear-existing",
        "--function-module", "ovam_labeler.tools.cvat.function",
        "-p", "labels=str:défaut_07", "-p", "project=str:12",
    )  # fmt: skip
    run("cvat_cli", *annotate, environment=environment, folder=tmp_path)
    before = mean_iou(task)
    task.shapes = [shape for shape in task.shapes if shape["frame"] != 0]
    task.draw(0, "défaut_07", masks.encode(task.truths[0]))  # type: ignore[attr-defined]
    pull = ("cvat", "pull", "1", "--url", url, "--project", "12", "--json")
    (stored,) = json.loads(run("ovam_labeler", *pull, environment=environment, folder=tmp_path))["stored"]
    assert (stored["frame"], stored["labels"], stored["state"]) == ("1@0", ["défaut_07"], "learned")
    run("cvat_cli", *annotate, environment=environment, folder=tmp_path)
    after = mean_iou(task)
    print(f"mean IoU {before:.3f} before, {after:.3f} after one correction")
    assert after > before, f"mean IoU {before:.3f} before, {after:.3f} after"
    assert json.loads(run("ovam_labeler", *pull, environment=environment, folder=tmp_path))["retracted"] == [
        stored["id"]
    ]
