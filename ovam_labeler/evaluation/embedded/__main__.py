"""``python -m ovam_labeler.evaluation.embedded [--quick]``: every figure of the embedded model beside its bar.

Concepts and drawings are ones that training never saw, masks are exact, pictures are read as the product reads them
(``read.side`` of the model folder); IoU is at thresholds relative to each map's range, picked on validation concepts,
without a refiner unless a line says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from backends.discovery import load_backend
from ovam_labeler.evaluation.embedded.bench import REFINER
from ovam_labeler.evaluation.embedded.drawings import unseen_styles
from ovam_labeler.evaluation.embedded.generated import EVERY, judge_generated
from ovam_labeler.evaluation.embedded.parts import Job, folder_of, measure
from ovam_labeler.evaluation.embedded.table import Figures, Line

MOST_BYTES, MOST_LOAD, MOST_GENERATE = 25e6, 1.0, 5.0
#: In a process of its own: how long loading takes and 20 steps of generation. One thread: two collapse on a busy machine.
_TIMES = """
import sys, time, torch, diffusers, transformers
from diffusers import StableDiffusionPipeline
torch.set_num_threads(1)
from backends.contract import Needs
from backends.discovery import load_backend
begin = time.perf_counter(); backend = load_backend(sys.argv[1]); backend.reader(); print(time.perf_counter() - begin)
begin = time.perf_counter(); backend.reader().generate("a photograph of a cat", Needs(), seed=0, steps=20); print(time.perf_counter() - begin)
"""


def engineering(model: str) -> list[Line]:
    """Size of the folder, time to load it and to generate one picture."""
    size = sum(f.stat().st_size for f in folder_of(model).rglob("*") if f.is_file())
    out = subprocess.run([sys.executable, "-c", _TIMES, model], check=True, capture_output=True, text=True).stdout
    load, generate = (float(v) for v in out.split()[-2:])
    return [
        Line("weights folder, MB", {"seen": size / 1e6}, {"seen": MOST_BYTES / 1e6}, most=True, digits=1),
        Line("loads in, s (libraries imported before)", {"seen": load}, {"seen": MOST_LOAD}, most=True, digits=2),
        Line("one generated picture, 20 steps, s", {"seen": generate}, {"seen": MOST_GENERATE}, most=True, digits=2),
    ]


def of_generated(model: str, every: int) -> list[Line]:
    """Generated pictures before two judges, and the judges on exact scenes."""
    judged = judge_generated(model, every)
    note = f"{judged.prompts} prompts, one of {judged.classes} classes each"
    return [
        Line("generated: prompted class recognised, share", {"seen": judged.recognised}, {"seen": 0.7}, note=note),
        Line("  that classifier on exact scenes", judged.exact, {}),
        Line("generated: word's mask and saliency, IoU", {"seen": judged.overlap}, {"seen": 0.6}),
        Line("  saliency on exact scenes, IoU", {"seen": judged.own}, {}),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded", help="a model folder, or 'embedded'")
    parser.add_argument("--quick", action="store_true", help="every third test concept")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    begin = time.time()
    every = 3 if arguments.quick else 1
    jobs: list[Job] = [
        (arguments.model, False, "test", every),
        (arguments.model, True, "test", every),
        (arguments.model, False, "val", 1),
        (arguments.model, True, "val", 1),
    ]
    unseen_styles([])  # fetched once, before two processes want them at the same time
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        novel, known, novel_val, known_val = pool.map(measure, jobs, 1)
    calibration = load_backend(arguments.model).attributor.calibration
    weights = {"word": calibration.word_presence, "token": calibration.token_presence}
    figures = Figures({"val": known_val, "test": known}, {"val": novel_val, "test": novel}, weights)
    lines = [*figures.lines(), *of_generated(arguments.model, EVERY * every), *engineering(arguments.model)]
    print(f"{'':52s} {'seen styles, other drawing':>22s} {'unseen style':>22s}")
    for line in lines:
        print(line)
    print(f"no refiner except where said ({REFINER}); {time.time() - begin:.0f} s")
    if arguments.json:
        found: list[dict[str, Any]] = [{"figure": x.text.strip(), "values": x.values, "bars": x.bars} for x in lines]
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
