"""Reading and generating with the embedded model, as ratios in one run: ``python -m benchmarks.reading``.

``capture_overhead``: generation with its queries recorded over generation without, pairs in turn, median of the ratios.
``passes_a_step``: UNet passes of receiving an image over its steps.
``batch_of_8``: time of eight single reads over that of one batch of the same eight.
``predict_peak_mb``, ``learn_peak_mb``: growth of anonymous memory while the application predicts twenty classes of a cached
image, and learns a token on it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from backends.contract import Needs, Reader, ReadRequest, capture_many
from backends.diffusion.tiny.training.composer import compose
from backends.discovery import load_backend
from benchmarks.memory import AnonymousPeak
from ovam_labeler.application import build_application
from ovam_labeler.demo.scenes import Plan, Scene, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions
from ovam_labeler.settings import Settings
from token_store.entities import Scope

PROMPT = "a photograph of a car"
EIGHT = 8


def figures(pairs: int = 5, threads: int | None = None) -> dict[str, float]:
    """All figures; ``pairs`` of measurements each."""
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", "1")))
    reader = load_backend("embedded").reader()
    plan = Plan(novel=EIGHT, known=EIGHT, corrections=1, tests=0)
    scenes = [s for s in make_scenes(load_pack("val"), 0, compose, plan).scenes if s.image.shape[:2] == (320, 320)]
    return {
        "capture_overhead": capture_overhead(reader, pairs),
        "passes_a_step": passes_a_step(reader, scenes[0].image),
        "batch_of_8": batch_gain(reader, [s.image for s in scenes[:EIGHT]], pairs),
        **peaks(scenes[0], [s.concept for s in scenes] + ["thing"] * 20),
    }


def capture_overhead(reader: Reader, pairs: int) -> float:
    return _median_ratio(
        lambda: reader.generate(PROMPT, Needs(), seed=0),
        lambda: reader.generate(PROMPT, Needs(queries=False), seed=0),
        pairs,
    )


def passes_a_step(reader: Reader, image: np.ndarray) -> float:
    before = reader.unet_passes
    capture = reader.capture(image, Needs(timesteps=(50, 100, 200)))
    return (reader.unet_passes - before) / len(capture.info.timesteps)


def batch_gain(reader: Reader, images: list[np.ndarray], pairs: int) -> float:
    requests = [ReadRequest(image) for image in images]
    return _median_ratio(
        lambda: [reader.capture(image, Needs()) for image in images],
        lambda: capture_many(reader, requests, Needs()),
        pairs,
    )


def peaks(scene: Scene, labels: list[str]) -> dict[str, float]:
    """Peak growth above the loaded model, the image's capture in the cache."""
    with tempfile.TemporaryDirectory(prefix="ovam-peaks-") as folder:
        settings = Settings(data_dir=Path(folder), _env_file=None)  # type: ignore[call-arg]
        with build_application(settings) as app:
            image, scope = LoadedImage(scene.image, "0" * 64), Scope.everywhere()
            app.inference.submit(image, Needs()).result()
            asked = [Label(name) for name in dict.fromkeys(labels)][:20]
            app.proposer.propose(image, asked[:1], scope, ProjectOptions())
            with AnonymousPeak() as predict:
                app.proposer.propose(image, asked, scope, ProjectOptions())
            with AnonymousPeak() as learn:
                app.learner.learn_mask(image, scene.truth, scene.concept, scope, created_by="benchmark")
            return {"predict_peak_mb": predict.growth_mb, "learn_peak_mb": learn.growth_mb}


def _median_ratio(one: Callable[[], object], other: Callable[[], object], pairs: int) -> float:
    """Median over pairs of time(one) / time(other), each pair measured back to back, the order changing."""
    one(), other()
    ratios = []
    for number in range(pairs):
        taken = {}
        for name, work in (("one", one), ("other", other)) if number % 2 else (("other", other), ("one", one)):
            begin = time.perf_counter()
            work()
            taken[name] = time.perf_counter() - begin
        ratios.append(taken["one"] / taken["other"])
    return statistics.median(ratios)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args(arguments)
    found = figures(options.pairs)
    print(f"generation with its queries recorded: {found['capture_overhead']:.3f} x generation without")
    print(f"receiving an image: {found['passes_a_step']:.2f} UNet passes a step")
    print(f"eight reads in one batch: {found['batch_of_8']:.2f} x faster than one by one")
    print(
        f"peak anonymous memory above the model: predicting {found['predict_peak_mb']:.0f} MB, learning {found['learn_peak_mb']:.0f} MB"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
