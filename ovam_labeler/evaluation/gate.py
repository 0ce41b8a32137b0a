"""What the promotion gate is worth: ``python -m ovam_labeler.evaluation.gate --seed N``.

Two stories are played through the product's own learner, on composed scenes with exact truth:

*late*   three good corrections, then a bad one (the mask of another object in the picture), then a good one.
*early*  a bad correction first, then two good ones.

After each correction the class's masks on other pictures are measured (mean IoU, the class asked for alone, no presence
decision), and beside it what the newest version would give if it were used without a gate.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.demo.scenes import Plan, Scene, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions
from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.image_source import load_image
from ovam_labeler.settings import Settings
from token_store.entities import Scope

#: Each story: (step's name, index of the correction scene, whether its mask is right).
STORIES: dict[str, tuple[tuple[str, int, bool], ...]] = {
    "late": (("good 1", 0, True), ("good 2", 1, True), ("good 3", 2, True), ("bad", 3, False), ("good 4", 4, True)),
    "early": (("bad", 0, False), ("good 1", 1, True), ("good 2", 2, True)),
}
CORRECTIONS = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One correction of one class in one story.

    Attributes:
        version: number of the version it made; ``state`` and ``used`` after the step, ``active`` what is used.
        iou: of the product's masks after the step; ``ungated``: if the new version were used whatever the verdict.
        first_state: state of the story's first version after the step; ``first_mask``: whether what is used was learned from its mask.
    """

    story: str
    concept: str
    name: str
    version: int | None
    state: str
    active: int | None
    iou: float
    ungated: float
    first_state: str
    first_mask: bool


class Stories:
    """Plays the stories of one set of scenes."""

    def __init__(self, app: OvamApplication, scenes: SceneSet, folder: Path) -> None:
        self.app, self.scenes, self.folder = app, scenes, folder
        self.options = ProjectOptions(method=app.settings.method, refiner=app.settings.refiner, presence=False)

    def play(self, story: str, concept: str) -> list[Step]:
        scope = Scope("gate", story)
        tests = self.scenes.of(concept, "test")
        before = self._measured(tests, scope, concept)
        steps = [Step(story, concept, "word", None, "", None, before, before, "", False)]
        for name, index, good in STORIES[story]:
            scene = self.scenes.of(concept, "correction")[index]
            mask = scene.truth if good else another_object(scene)
            result = self.app.learner.learn_mask(self._image(scene), mask, concept, scope, created_by="evaluation")
            steps.append(self._step(story, concept, name, result.version, scope, tests))
        return steps

    def _step(self, story: str, concept: str, name: str, version: int, scope: Scope, tests: Sequence[Scene]) -> Step:
        store = self.app.store
        active = store.get_token(scope, concept).aliases.get("active")
        value = self._measured(tests, scope, concept)
        ungated = value
        if active != version:
            store.promote(scope, concept, version, who="evaluation", why="what it would be without the gate")
            ungated = self._measured(tests, scope, concept)
            state = "rejected"
            store.rollback(scope, concept, who="evaluation", why="back to the gate's choice")
            store.set_version_state(scope, concept, version, state, who="evaluation", why="as the gate said")
        newest = store.get_version(scope, concept, version)
        first = store.get_version(scope, concept, 1)
        used = store.get_version(scope, concept, active).source_corrections if active is not None else ()
        mask = not set(first.source_corrections).isdisjoint(used)
        return Step(story, concept, name, version, newest.state, active, value, ungated, first.state, mask)

    def _measured(self, tests: Sequence[Scene], scope: Scope, concept: str) -> float:
        masks = [
            self.app.proposer.propose(self._image(s), [Label(concept)], scope, self.options)[0].mask for s in tests
        ]
        return fmean(iou(mask, s.truth) for mask, s in zip(masks, tests, strict=True))

    def _image(self, scene: Scene) -> LoadedImage:
        return load_image(self.folder / f"{scene.name}.png")


def another_object(scene: Scene) -> np.ndarray:
    """Bool (H, W): the largest object of the picture that is not of the scene's class."""
    others = {name: mask for name, mask in scene.masks.items() if name != scene.concept}
    return others[max(sorted(others), key=lambda name: others[name].sum())]


def run(
    seed: int, split: str, classes: int, tests: int, known: int = 0, *, part: int = 0, parts: int = 1
) -> list[Step]:
    """Play both stories for ``classes`` new classes and ``known`` known ones, in a folder that is removed at the end.

    Args:
        part, parts: of the classes every ``parts``-th, from ``part`` on (for several processes).
    """
    with tempfile.TemporaryDirectory(prefix="ovam-gate-") as name:
        folder = Path(name)
        plan = Plan(novel=classes, known=known, corrections=CORRECTIONS, tests=tests)
        scenes = make_scenes(load_pack("val" if split == "val" else "test"), seed, compose, plan)
        scenes.save(folder / "scenes")
        app = build_application(Settings().model_copy(update={"data_dir": folder / "data"}))
        try:
            stories = Stories(app, scenes, folder / "scenes")
            steps = []
            for concept in scenes.concepts[part::parts]:
                for story in STORIES:
                    steps += stories.play(story, concept.name)
                    print(f"{concept.name}, {story}: done", file=sys.stderr, flush=True)
            return steps
        finally:
            app.close()


def table(steps: Sequence[Step]) -> str:
    """Mean over the classes for each step of each story."""
    lines = [f"{'story':6} {'after':8} {'IoU':>6} {'ungated':>8}  new version used / rejected; first version rejected"]
    for story, parts in STORIES.items():
        for name in ("word", *(part[0] for part in parts)):
            rows = [s for s in steps if s.story == story and s.name == name]
            if not rows:
                continue
            used = sum(s.version is not None and s.active == s.version for s in rows)
            rejected = sum(s.state == "rejected" for s in rows)
            first = sum(s.first_state == "rejected" for s in rows)
            lines.append(
                f"{story:6} {name:8} {100 * fmean(s.iou for s in rows):6.1f} {100 * fmean(s.ungated for s in rows):8.1f}"
                f"  {used} / {rejected} of {len(rows)}; {first}"
            )
    return "\n".join([*lines, *summary(steps)])


def summary(steps: Sequence[Step]) -> list[str]:
    """One sentence a story: what became of the bad correction, and mean IoU before, between and after."""
    at = {key: [s for s in steps if (s.story, s.name) == key] for key in {(s.story, s.name) for s in steps}}
    if ("late", "bad") not in at or ("early", "good 2") not in at:
        return []
    iou = {key: 100 * fmean(s.iou for s in rows) for key, rows in at.items()}
    bad, first = at["late", "bad"], at["early", "good 2"]
    refused = sum(s.state == "rejected" for s in bad)
    demoted = sum(s.first_state == "rejected" and s.active != 1 for s in first)
    aside = sum(not s.first_mask for s in first)
    return [
        f"a bad one after three good ones: rejected in {refused} of {len(bad)} classes; mean IoU {iou['late', 'good 3']:.1f} before, "
        f"{iou['late', 'bad']:.1f} after it ({100 * fmean(s.ungated for s in bad):.1f} without the gate), {iou['late', 'good 4']:.1f} after "
        "the next good one",
        f"a bad one first: its token demoted after two good ones in {demoted} of {len(first)} classes, its mask left out of what "
        f"is learned in {aside}; mean IoU {iou['early', 'word']:.1f} before, "
        f"{iou['early', 'bad']:.1f} after it, {iou['early', 'good 1']:.1f} between, {iou['early', 'good 2']:.1f} after the second good one "
        f"({iou['late', 'good 2']:.1f} after two good ones alone)",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("test", "val"), default="test", help="tune on val only")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--known", type=int, default=0, help="classes whose word the model knows, besides")
    parser.add_argument("--tests", type=int, default=6, help="pictures a class that are measured")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write the steps as JSON to this file")
    arguments = parser.parse_args()
    given = (arguments.seed, arguments.split, arguments.classes, arguments.tests, arguments.known)
    if arguments.processes == 1:
        steps = run(*given)
    else:
        with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
            parts = [pool.submit(run, *given, part=k, parts=arguments.processes) for k in range(arguments.processes)]
            steps = [step for part in parts for step in part.result()]
    print(table(steps))
    if arguments.report:
        arguments.report.write_text(json.dumps([asdict(s) for s in steps], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
