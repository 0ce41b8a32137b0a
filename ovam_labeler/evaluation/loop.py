"""The measurement of ``make demo-check`` without Label Studio: ``python -m ovam_labeler.evaluation.loop --seed N``.

The same scenes, services, store and figures; only the transport is missing.  Meant for tuning (``--split val``) and
for quick pooled figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.scenes import Plan, Scene, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.domain import Label
from ovam_labeler.evaluation.measure import Tick
from ovam_labeler.evaluation.play import Served, play
from ovam_labeler.evaluation.probe import Probe
from ovam_labeler.evaluation.report import build_report
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.settings import Settings
from token_store.entities import Scope


class DirectLoop:
    """Predicts and corrects through the services, in this process."""

    def __init__(self, app: Application, probe: Probe, labels: Sequence[str]) -> None:
        self.app, self.probe, self.labels = app, probe, [Label(n) for n in labels]
        self.scope = Scope("loop", "1")

    def predict(self, scenes: Sequence[Scene], tick: Tick) -> Served:
        options = project_options(self.app.settings)
        served = {}
        for i, scene in enumerate(scenes):
            proposals = self.app.proposer.propose(self.probe.image(scene), self.labels, self.scope, options)
            served[scene.name] = {p.label: p.mask for p in proposals if p.present and p.mask.any()}
            tick((i + 1) / len(scenes))
        return served

    def correct(self, scenes: Sequence[Scene], tick: Tick) -> None:
        for i, scene in enumerate(scenes):
            self.app.learner.learn_mask(
                self.probe.image(scene), scene.truth, scene.concept, self.scope, created_by="evaluation"
            )
            tick((i + 1) / len(scenes))

    def settle(self, tick: Tick) -> None:
        tick(1.0)  # learn_mask returns when it has learned


def printed(text: str) -> Tick:
    """A step on one line of stderr, with its seconds at the end."""
    begin = time.perf_counter()
    print(f"{text} ...", end="", file=sys.stderr, flush=True)

    def tick(share: float) -> None:
        if share >= 1:
            print(f" {time.perf_counter() - begin:.1f} s", file=sys.stderr, flush=True)

    return tick


def run(seed: int, split: str, plan: Plan, settings: Settings) -> dict[str, object]:
    """Measure one seed; ``settings.data_dir`` is replaced by a fresh folder that is removed at the end."""
    from ovam_labeler.application import build_application

    with tempfile.TemporaryDirectory(prefix="ovam-loop-") as name:
        folder = Path(name)
        scenes = make_scenes(load_pack("val" if split == "val" else "test"), seed, compose, plan)
        scenes.save(folder / "scenes")
        app = build_application(settings.model_copy(update={"data_dir": folder / "data"}))
        try:
            probe = Probe(app, folder / "scenes")
            loop = DirectLoop(app, probe, [c.name for c in scenes.concepts])
            played = play(loop, probe, scenes, printed)
            return build_report(
                played,
                seed=seed,
                generated={},
                extra={"transport": "direct", "refiner": settings.refiner, "split": split},
            )
        finally:
            app.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("test", "val"), default="test", help="tune on val only")
    parser.add_argument("--report", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--novel", type=int, default=Plan().novel)
    parser.add_argument("--known", type=int, default=Plan().known)
    parser.add_argument("--tests", type=int, default=Plan().tests)
    arguments = parser.parse_args()
    plan = Plan(novel=arguments.novel, known=arguments.known, tests=arguments.tests)
    report = run(arguments.seed, arguments.split, plan, Settings())
    text = json.dumps(report, indent=1)
    if arguments.report:
        arguments.report.parent.mkdir(parents=True, exist_ok=True)
        arguments.report.write_text(text, encoding="utf-8")
    print(json.dumps({k: report[k] for k in ("seed", "summary", "lift_ci", "absent", "timings")}, indent=1))


if __name__ == "__main__":
    main()
