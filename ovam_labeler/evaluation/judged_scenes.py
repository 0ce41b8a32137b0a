"""Composed scenes with what the product makes of them: known words asked for, other concepts learned from one mask each."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.scenes import Plan, Scene, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.domain import ProjectOptions
from ovam_labeler.evaluation.probe import Probe
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.settings import Settings
from token_store.entities import Scope


@dataclass(frozen=True, slots=True)
class JudgedScenes:
    """Attributes:
    scope: in which the concepts without a word were learned, each from its one corrected scene.
    tests: the scenes that nothing was learned from.
    """

    app: Application
    probe: Probe
    scenes: SceneSet
    scope: Scope
    options: ProjectOptions

    @property
    def tests(self) -> list[Scene]:
        return [s for s in self.scenes.scenes if s.role == "test"]

    def kind(self, label: str) -> str:
        """``"word"`` of a concept the model knows, ``"token"`` of one that was learned."""
        return "word" if any(c.name == label and c.has_word for c in self.scenes.concepts) else "token"


@contextmanager
def judged_scenes(seed: int, split: str, plan: Plan, settings: Settings) -> Iterator[JudgedScenes]:
    """Make the scenes of a seed and learn; in a folder of its own that is removed at the end."""
    from ovam_labeler.application import build_application

    with tempfile.TemporaryDirectory(prefix="ovam-judged-") as name:
        folder = Path(name)
        scenes = make_scenes(load_pack("val" if split == "val" else "test"), seed, compose, plan)
        scenes.save(folder / "scenes")
        app = build_application(settings.model_copy(update={"data_dir": folder / "data"}))
        try:
            probe, scope = Probe(app, folder / "scenes"), Scope("evaluation", "1")
            for concept in scenes.concepts:
                if not concept.has_word:
                    first = scenes.of(concept.name, "correction")[0]
                    app.learner.learn_mask(
                        probe.image(first), first.truth, concept.name, scope, created_by="evaluation"
                    )
            print(f"seed {seed}: {len(scenes.concepts)} concepts", file=sys.stderr, flush=True)
            yield JudgedScenes(app, probe, scenes, scope, project_options(app.settings))
        finally:
            app.close()


def print_table(
    description: str | None,
    measure: Callable[[JudgedScenes], list[dict[str, Any]]],
    table: Callable[[list[dict[str, Any]]], Mapping[str, Any]],
) -> None:
    """The command of a measurement: ``--seeds`` and ``--split``, rows of all seeds, their table as JSON."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=("val", "test"), default="val", help="tune on val only")
    arguments = parser.parse_args()
    plan = Plan(novel=8, known=8, corrections=1, tests=4)
    rows = []
    for seed in arguments.seeds:
        with judged_scenes(seed, arguments.split, plan, Settings()) as judged:
            rows += [{"seed": seed, **row} for row in measure(judged)]
    print(json.dumps(table(rows), indent=1))
