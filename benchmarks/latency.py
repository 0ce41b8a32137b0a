"""From webhook to the new model version: ``python -m benchmarks.latency``.

The real Label Studio and our real server, the embedded model: corrections are submitted over Label Studio's API as its
editor does, Label Studio sends the webhook, and our ``/setup`` is asked until it names another model version.  The time is
counted from the moment our server stored the event; the annotator's own wait, from the click on Submit, is printed too.
Between corrections, tasks are opened in Label Studio and timed.  A correction whose verdict leaves the project as it is (the
word does better than its token) changes no version; its job's end is counted instead, and it is told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr

from backends.diffusion.tiny.training.composer import compose
from benchmarks.page_loads import PageLoads
from benchmarks.real_server import real_server
from ovam_labeler.demo.annotator import corrected_result
from ovam_labeler.demo.label_studio_process import LabelStudio, ensure_installed, find_environment
from ovam_labeler.demo.project import DemoProject, label_config
from ovam_labeler.demo.scenes import Plan, Scene, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from token_store import open_store
from token_store.contract import TokenStore
from token_store.entities import Scope

#: Seconds between looks at /setup.
LOOK = 0.02
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Timed:
    """One correction: seconds from the stored event, and from the click, to the new version (or its job's end)."""

    label: str
    from_webhook: float
    from_click: float
    changed: bool
    corrections_before: int


def measure(count: int, loads: int, seed: int, environment: Path) -> dict[str, Any]:
    """Everything in one run.

    Args:
        count: corrections; loads: tasks opened.
        environment: Label Studio's.
    """
    classes = max(1, count // 2)
    plan = Plan(novel=classes - classes // 3, known=classes // 3, corrections=-(-count // classes), tests=1)
    scenes = make_scenes(load_pack("test"), seed, compose, plan)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ovam-latency-"))).resolve()
        scenes.save(work / "files" / "scenes")
        studio = LabelStudio(environment, work / "label-studio", work / "files", environment / "templates")
        stack.callback(studio.stop)
        studio.start()
        settings = Settings(
            data_dir=work / "backend",
            label_studio_url=studio.url,
            label_studio_token=SecretStr(studio.token),
            _env_file=None,
        )  # type: ignore[call-arg]
        own = {"OVAM_LABEL_STUDIO_URL": studio.url, "OVAM_LABEL_STUDIO_TOKEN": studio.token}
        url = stack.enter_context(real_server(settings.data_dir, work / "server.log", own))
        labels = [c.name for c in scenes.concepts]
        project = DemoProject.create(LabelStudioClient(settings), "Latency", labels)
        root = work / "files"
        project.import_folder(root / "scenes", root, {s.name: root / "scenes" / f"{s.name}.png" for s in scenes.scenes})
        project.connect(url)
        store = open_store(settings.resolved_database_url())
        stack.callback(store.close)
        pages = stack.enter_context(PageLoads(studio, project.id))
        corrected = [s for s in scenes.scenes if s.role == "correction"]
        # By rounds through the classes, as they come to an annotator: first each class's first correction.
        corrected = sorted(corrected, key=lambda s: s.index)[:count]
        project.retrieve([s.name for s in corrected])
        pages.load(project.tasks[corrected[0].name])
        loaded: list[float] = []
        timed: list[Timed] = []
        seen: dict[str, int] = {}
        setup = {"project": f"{project.id}.1", "schema": label_config(labels)}
        for number, scene in enumerate(corrected):
            if len(loaded) < loads and number % max(1, count // loads) == 0:
                loaded.append(pages.load(project.tasks[scene.name]))
            timed.append(_correct(project, scene, store, url, setup, seen.get(scene.concept, 0)))
            seen[scene.concept] = seen.get(scene.concept, 0) + 1
    return _figures(timed, loaded, pages.by)


def _correct(
    project: DemoProject, scene: Scene, store: TokenStore, url: str, setup: dict[str, Any], before: int
) -> Timed:
    session = requests.Session()
    version = session.post(f"{url}/setup", json=setup, timeout=60).json()["model_version"]
    prediction = project.client.predictions(project.tasks[scene.name])[-1]
    result = corrected_result(prediction, scene.concept, scene.truth)
    known = {job.id for job in store.list_jobs(kinds=("learn",))}
    click = time.time()
    made = project.client.submit_annotation(
        project.tasks[scene.name], result, lead_time=10.0, parent_prediction=prediction["id"]
    )
    end = 0.0
    changed = False
    while not end:
        now = session.post(f"{url}/setup", json=setup, timeout=60).json()["model_version"]
        if now != version:
            end, changed = time.time(), True
            break
        ended = [j for j in store.list_jobs(kinds=("learn",), limit=5) if j.id not in known and j.finished_at]
        if ended and ended[0].finished_at is not None:
            if ended[0].state != "done":
                raise RuntimeError(f"Learning failed: {ended[0].message}")
            # Looked at once more: the version may have changed between the two looks.
            now = session.post(f"{url}/setup", json=setup, timeout=60).json()["model_version"]
            end, changed = ended[0].finished_at.timestamp(), now != version
        if time.time() - click > PATIENCE:
            raise RuntimeError(f"No new model version after {PATIENCE:.0f} s.")
        time.sleep(LOOK)
    stored = next(
        c for c in store.list_corrections(Scope("default", str(project.id))) if c.annotation_id == str(made["id"])
    )
    # The job still writes its end; the next correction waits for it, as it would in the queue.
    while any(j.state in ("queued", "running") for j in store.list_jobs(kinds=("learn",), limit=5)):
        time.sleep(LOOK)
    return Timed(scene.concept, end - stored.created_at.timestamp(), end - click, changed, before)


def _figures(timed: list[Timed], loaded: list[float], by: str) -> dict[str, Any]:
    waits = [t.from_webhook for t in timed]
    load = statistics.median(loaded)
    return {
        "corrections": len(timed),
        "webhook_to_version_median_s": statistics.median(waits),
        "webhook_to_version_worst_s": max(waits),
        "first_correction_median_s": statistics.median(t.from_webhook for t in timed if not t.corrections_before),
        "click_to_version_median_s": statistics.median(t.from_click for t in timed),
        "versions_changed": sum(t.changed for t in timed),
        "page_load_median_s": load,
        "page_loads": len(loaded),
        "page_loads_by": by,
        "median_over_two_page_loads": statistics.median(waits) / (2 * load),
        "each_s": [round(w, 3) for w in waits],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--corrections", type=int, default=20)
    parser.add_argument("--loads", type=int, default=5, help="tasks opened in Label Studio")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--environment", type=Path, help="Label Studio's virtual environment")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    environment = options.environment or find_environment(Settings().data_dir)
    ensure_installed(environment)
    figures = measure(options.corrections, options.loads, options.seed, environment)
    print(
        f"webhook to new model version: median {figures['webhook_to_version_median_s']:.2f} s, worst "
        f"{figures['webhook_to_version_worst_s']:.2f} s of {figures['corrections']} corrections "
        f"({figures['versions_changed']} changed the version); first correction of a class "
        f"{figures['first_correction_median_s']:.2f} s; from the click {figures['click_to_version_median_s']:.2f} s"
    )
    print(
        f"opening a task in Label Studio ({figures['page_loads_by']}): median {figures['page_load_median_s']:.2f} s of "
        f"{figures['page_loads']}; the median wait is {figures['median_over_two_page_loads']:.2f} x two page loads"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
