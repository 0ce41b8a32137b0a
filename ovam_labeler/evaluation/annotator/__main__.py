"""``python -m ovam_labeler.evaluation.annotator``: seconds a mask with the loop, with words only, and drawn from nothing.

Composes pictures of held-out drawings with exact masks, labels them twice through the product's own routes (once learning,
once never), and prints the tables of docs/annotator.md; ``--page`` writes them there, the plot beside it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.application import build_application
from ovam_labeler.demo.scenes import Plan, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.annotator.edit_time import Pace, Work
from ovam_labeler.evaluation.annotator.figures import LOOP, WORDS, Run
from ovam_labeler.evaluation.annotator.page import tables, write_page
from ovam_labeler.evaluation.annotator.plot import draw
from ovam_labeler.evaluation.annotator.session import Annotator, MaskWork
from ovam_labeler.helping import QUIET
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.corrections import TOOL
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from token_store.entities import Scope

#: Way -> the project's options.
OPTIONS = {WORDS: {"learning": False}, LOOP: {}}


def run_seed(scenes: SceneSet, pace: Pace, settings: Settings) -> tuple[Run, str]:
    """Label one seed's pictures both ways, in one application, each way a project of its own.

    Returns:
        (the run, identity of the base model's embedding space).
    """
    order = np.random.default_rng(scenes.seed).permutation(len(scenes.scenes))
    stream = [scenes.scenes[i] for i in order]
    labels = [concept.name for concept in scenes.concepts]
    sessions: dict[str, Sequence[MaskWork]] = {}
    quiet: dict[str, Sequence[str]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ovam-annotator-") as folder,
        build_application(
            settings.model_copy(update={"data_dir": Path(folder)}), {TOOL: LabelStudioTool(settings)}
        ) as app,
    ):
        web = create_app(app)
        app.start_worker()
        for project, (way, options) in enumerate(OPTIONS.items(), start=1):
            begin = time.perf_counter()
            sessions[way] = Annotator(app, web, project, labels, options, pace).label(stream)
            quiet[way] = sorted(app.store.get_note(Scope("default", str(project)), QUIET))
            print(f"seed {scenes.seed}, {way}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        space = app.backend().attributor.fingerprint.space
    words = {concept.name: concept.has_word for concept in scenes.concepts}
    return Run(scenes.seed, words, len(stream), sessions, quiet), space


def as_json(run: Run, **more: Any) -> str:
    return json.dumps({**more, "run": asdict(run)}, separators=(",", ":"))


def read_json(text: str) -> tuple[Run, dict[str, Any]]:
    """The run of :func:`as_json`, and what else was written."""
    more = json.loads(text)
    kept = more.pop("run")

    def work(value: dict[str, Any] | None) -> Work | None:
        return None if value is None else Work(**value)

    kept["sessions"] = {
        way: [MaskWork(**{**one, "draw": work(one["draw"]), "edit": work(one["edit"])}) for one in works]
        for way, works in kept["sessions"].items()
    }
    return Run(**kept), more


def main() -> None:
    pace = Pace()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--split", choices=("test", "val"), default="test", help="tune on val only")
    parser.add_argument("--novel", type=int, default=4, help="classes without a word in the model's training")
    parser.add_argument("--known", type=int, default=2, help="classes with one")
    parser.add_argument("--scenes", type=int, default=60, help="pictures in all")
    parser.add_argument("--tolerance", type=float, default=pace.tolerance, help="share of the shorter side")
    parser.add_argument("--brush", type=float, default=pace.brush, help="share of the shorter side")
    parser.add_argument(
        "--runs", type=Path, help="folder that keeps each seed's sessions; those that are there are read"
    )
    parser.add_argument("--page", type=Path, help="write tables and plot into this page, such as docs/annotator.md")
    given = parser.parse_args()
    classes = given.novel + given.known
    if given.scenes % classes:
        parser.error(f"--scenes is {given.scenes}; it must be a multiple of the {classes} classes.")
    logging.getLogger("ovam_labeler").setLevel(logging.ERROR)  # every skipped proposal would be a line
    pace = Pace(tolerance=given.tolerance, brush=given.brush)
    plan = Plan(novel=given.novel, known=given.known, corrections=0, tests=given.scenes // classes)
    about = {"split": given.split, "tolerance": pace.tolerance, "brush": pace.brush, "plan": asdict(plan)}
    runs: list[Run] = []
    spaces: set[str] = set()
    for seed in given.seeds:
        kept = given.runs / f"seed-{seed}.json" if given.runs else None
        if kept and kept.exists():
            run, more = read_json(kept.read_text(encoding="utf-8"))
            if differing := sorted(key for key in about if more.get(key) != about[key]):
                parser.error(f"{kept} was made with another {' and '.join(differing)}; name another folder.")
            space = more["space"]
        else:
            scenes = make_scenes(load_pack(given.split), seed, compose, plan)
            run, space = run_seed(scenes, pace, Settings())
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(as_json(run, **about, space=space), encoding="utf-8")
        runs.append(run)
        spaces.add(space)
    if len(spaces) > 1:
        parser.error(f"the seeds in {given.runs} are of {len(spaces)} base models; name another folder.")
    text = tables(runs, pace, spaces.pop(), given.split)
    print(text)
    if given.page:
        write_page(given.page, text)
        draw(runs, pace, given.page.parent / "images" / "annotator.webp")


if __name__ == "__main__":
    main()
