"""``ovam-labeler demo --headless``: plays the annotator over Label Studio's own API and writes a report.

Predict all -> correct one mask a concept -> wait -> predict again -> two more corrections a concept -> predict again.
Everything is real: Label Studio, the backend's HTTP server, its store and worker, the embedded model.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import SecretStr

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo import generated as pictures_made
from ovam_labeler.demo.annotator import StudioLoop
from ovam_labeler.demo.label_studio_process import LabelStudio, ensure_installed, find_environment
from ovam_labeler.demo.pictures import sheet
from ovam_labeler.demo.project import DemoProject
from ovam_labeler.demo.report_page import write_page, write_sheet
from ovam_labeler.demo.scenes import Plan, SceneSet, make_scenes
from ovam_labeler.demo.signals import ended_by_signals
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.demo.steps import Steps
from ovam_labeler.drawing import overlay
from ovam_labeler.errors import OvamError
from ovam_labeler.evaluation.play import Played, play
from ovam_labeler.evaluation.probe import Probe
from ovam_labeler.evaluation.report import build_report, missing
from ovam_labeler.services import Application
from ovam_labeler.settings import Settings
from token_store.entities import Scope

#: Pictures generated of each known word.
GENERATED_EACH = 2


@dataclass(frozen=True, slots=True)
class Running:
    """A demo that runs: Label Studio, the application and the connected project."""

    studio: LabelStudio
    app: Application
    probe: Probe
    project: DemoProject
    generated: list[pictures_made.GeneratedPicture]

    @property
    def scope(self) -> Scope:
        return Scope("default", str(self.project.id))


def run_headless(settings: Settings, report: Path, seed: int, plan: Plan | None = None) -> int:
    """Play a seed and write ``report.json`` and ``index.html``.

    Args:
        settings: the run's own state replaces their data folder; it is fresh and removed at the end.
        report: folder, made when missing.

    Returns:
        0 when the report is complete, 1 when something is missing from it (each thing named on stderr).

    Raises:
        OvamError: Label Studio or the backend could not be started, or the loop broke.
    """
    begin = time.perf_counter()
    report.mkdir(parents=True, exist_ok=True)
    with ended_by_signals(), Steps() as steps, tempfile.TemporaryDirectory(prefix="ovam-demo-") as name:
        work = Path(name).resolve()  # Label Studio compares resolved paths
        timings: dict[str, float] = {}
        scenes = _composed(seed, plan or Plan(), work / "files" / "scenes", steps)
        timings["compose"] = time.perf_counter() - begin
        with started(settings, work, scenes, seed, steps) as running:
            timings["start"] = time.perf_counter() - begin - timings["compose"]
            played = play(
                StudioLoop(running.app, running.project, running.scope, [c.name for c in scenes.concepts]),
                running.probe,
                scenes,
                steps,
            )
            generated, shown = _judge_generated(running, scenes, steps, played)
            played.timings = {**timings, **played.timings}
            rest = {
                "transport": "label-studio",
                "refiner": settings.refiner,
                "total_seconds": time.perf_counter() - begin,
            }
            figures = build_report(played, seed=seed, generated=generated, extra=rest)
            write_page(report / "index.html", figures, played, shown)
            write_sheet(report / "before_after.png", figures, played)
            raw = [Image.fromarray(p.image.pixels) for p in running.generated]
            sheet([*raw, *(picture for _, picture in shown)], columns=len(raw), side=132).save(report / "generated.png")
        text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False)
        (report / "report.json").write_text(text + "\n", encoding="utf-8")
        gaps = missing(figures)
        for sentence in gaps:
            steps.console.print(sentence, markup=False)
        steps.console.print(f"The report is in {report / 'index.html'}.", markup=False, highlight=False)
    return 1 if gaps else 0


@contextmanager
def started(settings: Settings, work: Path, scenes: SceneSet, seed: int, steps: Steps) -> Iterator[Running]:
    """Label Studio, backend and project of a work folder; all ended, in reverse order, when the block ends.

    ``work/files`` holds the pictures (``scenes/`` already written), ``work/label-studio`` and ``work/backend`` the state.
    A project of the same title is found again, with its corrections.
    """
    from ovam_labeler.application import build_application
    from ovam_labeler.demo.backend_server import BackendServer
    from ovam_labeler.tools.label_studio.client import LabelStudioClient
    from ovam_labeler.tools.label_studio.corrections import TOOL
    from ovam_labeler.tools.label_studio.tool import LabelStudioTool

    environment = find_environment(settings.data_dir)
    ensure_installed(environment, steps.named("Label Studio's environment"))
    with ExitStack() as stack:
        studio = LabelStudio(environment, work / "label-studio", work / "files", environment / "templates")
        stack.callback(studio.stop)
        studio.start(steps.named("Starting Label Studio"))
        own = settings.model_copy(
            update={
                "data_dir": work / "backend",
                "database_url": None,
                "label_studio_url": studio.url,
                "label_studio_token": SecretStr(studio.token),
                "webhook_secret": None,
            }
        )
        app = build_application(own, decoders={TOOL: LabelStudioTool(own)})
        stack.callback(app.close)
        probe = Probe(app, work / "files" / "scenes")
        server = stack.enter_context(BackendServer(app))
        app.start_worker()
        words = [c.name for c in scenes.concepts if c.has_word] * GENERATED_EACH
        made = pictures_made.generate(
            app, probe, words, work / "files" / "generated", seed, steps("Generating pictures with the embedded model")
        )
        tick = steps("Making the project in Label Studio")
        client = LabelStudioClient(own)
        title = f"OVAM demo, seed {seed}"
        project = DemoProject.find(client, title)
        if project is None:
            project = DemoProject.create(client, title, [c.name for c in scenes.concepts])
            root = work / "files"
            tick(0.1)
            project.import_folder(
                root / "scenes", root, {s.name: root / "scenes" / f"{s.name}.png" for s in scenes.scenes}
            )
            tick(0.5)
            prompts = {p.name: pictures_made.PROMPT.format(p.label) for p in made}
            project.import_folder(root / "generated", root, {p.name: p.path for p in made}, prompts)
        tick(0.8)
        project.connect(server.url)
        tick(1.0)
        yield Running(studio, app, probe, project, made)


def _composed(seed: int, plan: Plan, folder: Path, steps: Steps) -> SceneSet:
    tick = steps("Composing pictures with exact truth")
    scenes = make_scenes(load_pack("test"), seed, compose, plan)
    tick(0.5)
    scenes.save(folder)
    tick(1.0)
    return scenes


def _judge_generated(
    running: Running, scenes: SceneSet, steps: Steps, played: Played
) -> tuple[dict[str, Any], list[tuple[str, Image.Image]]]:
    """Predict the generated pictures through Label Studio, count UNet passes, compare with the independent labeller."""
    tick = steps("Predicting the generated pictures from their kept queries")
    with played.timed("predict_generated"):
        reader = running.app.backend().reader()
        passes = reader.unet_passes
        running.project.retrieve([p.name for p in running.generated])
        passes = reader.unet_passes - passes
        stored = running.project.predictions()
    tick(1.0)
    if lost := [p.name for p in running.generated if p.name not in stored]:
        raise OvamError(f"Label Studio stored no prediction for the generated picture '{lost[0]}'.")
    with played.timed("judge"):
        masks = pictures_made.word_masks(running.probe, running.generated)
        found = pictures_made.judged(
            running.generated, masks, scenes, unet_passes=passes, tick=steps("Asking the independent labeller")
        )
    found["served"] = sum(bool(stored[p.name]["result"]) for p in running.generated)
    shown = [
        (f"{p.label}", overlay(p.image.pixels, mask, None)) for p, mask in zip(running.generated, masks, strict=True)
    ]
    return found, shown
