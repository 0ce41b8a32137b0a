"""Train on a borrowed GPU with one command, repeated while the loan lasts::

    python -m backends.diffusion.tiny.training.gpu --ship ship.zip --minutes 9.5 --out $OUT

Unpacks the sprites, starts from the shipped weights, composes scenes in as many processes as there are spare cores (all
the while: new parts are taken up when the old ones are used up), trains the phase ``finer`` for some minutes, with
painting at full weight beside the grounding, and leaves the average weights, the log and a sheet of generated pictures in ``--out``.
A second call goes on where the first stopped, as long as the run folder is kept; where it is not, ``--start`` takes the first
call's ``average.safetensors``. ``--until`` is the length of the whole phase over several calls: the rate is annealed towards it, by
default to the end of this call. The UNet runs by recorded CUDA graphs; should recording fail, training starts again without.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from .export import WEIGHTS, default_settings, newest_checkpoint, write_folder
from .library import Library
from .sources import run_folder
from .unet import START

PACKAGE = "backends.diffusion.tiny.training"
#: Of every eight composing processes, so many make each kind.
KINDS = ("plain160", "alone128", "new160", "plain160", "alone128", "plain160", "plain224", "new224")
#: Training begins when there are some of these.
FIRST = ("plain160", "new160", "alone128")
PAINT = 2  # plain pictures for each pair of scenes
RATE = 1.1e-3
PROMPTS = tuple(
    f"a photograph of a {n}" for n in ["cat", "red apple", "house", "fire engine", "penguin", "tree", "crab", "taxi"]
)


def run(stage: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"{PACKAGE}.{stage}", *arguments], check=True)


def start_composing(processes: int, first: int, pairs: int, log: IO[bytes]) -> list[subprocess.Popen[bytes]]:
    """Processes that write pool parts until they are ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = []
    for k in range(processes):
        # small parts first, so that training can begin; fewer processes than kinds make one after the other
        sizes = [max(2, pairs // 4), *[pairs] * 400]
        numbers = [k + i * processes for i in range(len(sizes))]
        parts = [f"{KINDS[n % len(KINDS)]}-{first + n}={size}" for n, size in zip(numbers, sizes, strict=True)]
        command = ["nice", "-n", "10", sys.executable, "-m", f"{PACKAGE}.pool", *parts]
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    return started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ship", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of this call, all in all")
    parser.add_argument("--until", type=float, help="training minutes of the whole phase (what this call has)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, nargs="+", help="scene pairs a step; of several the faster")
    parser.add_argument("--paint", type=float, default=PAINT, help="plain pictures for each pair")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--start", type=Path, help="average.safetensors to go on from, instead of the shipped weights")
    parser.add_argument("--part-pairs", type=int, default=400, help="scene pairs a pool part")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 4))
    a = parser.parse_args()
    end, folder = time.time() + a.minutes * 60, run_folder()
    if not (folder / "extra_sprites.npy").exists():
        run("ship", "--unpack", str(a.ship))
    if not (folder / START).exists():
        run("warm")
        if a.start is not None:
            torch.save(newest_checkpoint(a.start), folder / START)
    _ = Library().alike  # made once, not in every process
    parts = folder / "pool"
    composed = (folder / "compose.log").open("ab")
    composing = start_composing(a.processes, len(list(parts.glob("c.*.npy"))) + 1000, a.part_pairs, composed)
    try:
        while not all(any(parts.glob(f"z.{kind}-*.npy")) for kind in FIRST[: 3 if a.paint else 2]):
            if any(process.poll() for process in composing):
                raise RuntimeError(f"composing ended; see {folder / 'compose.log'}")
            time.sleep(1)
        print(f"training begins with {(end - time.time()) / 60:.1f} minutes left", flush=True)
        train(a, end, ["--record"] if a.device == "cuda" else [])
    finally:
        for process in composing:
            process.terminate()
    leave(a.out, folder, a.device)
    print((folder / "unet.log").read_text().splitlines()[-1])


def train(a: argparse.Namespace, end: float, extra: list[str]) -> None:
    """The stage ``unet`` until shortly before ``end``; once more without ``extra`` if that fails."""
    folder = run_folder()
    most = max(0.1, (end - time.time() - 40) / 60)  # to start, to save and to paint a sheet
    earlier = folder / "unet-finer.pt"
    begun = torch.load(earlier, map_location="cpu", weights_only=True)["minutes"] if earlier.exists() else 0.0
    arguments = ["--words-minutes=0", "--tokens-minutes=0", f"--finer-minutes={a.until or begun + most}"]
    arguments += [f"--most-minutes={most}", f"--device={a.device}", f"--paint={a.paint}", f"--finer-rate={a.rate}"]
    arguments += ["--processes=1", *(["--pairs", *map(str, a.pairs)] if a.pairs else [])]
    command = [sys.executable, "-m", f"{PACKAGE}.unet", *arguments, *extra]
    with (folder / "unet.log").open("ab") as log:
        done = subprocess.run(command, check=not extra, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        print((folder / "unet.log").read_text()[-2000:], flush=True)
        train(a, end, [])


def leave(out: Path, folder: Path, device: str) -> None:
    """Average weights, log and a sheet of pictures, small enough to carry home."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "unet.log", out / "unet.log")
    state = newest_checkpoint()
    average = {name: value.half().cpu().contiguous() for name, value in state["average"].items()}
    save_file(average, out / "average.safetensors")
    target = folder / "weights"
    write_folder(target, default_settings(WEIGHTS / "ovam.json", state), state)
    try:  # the weights are what counts
        paint_sheet(target, out / "painted.png", device)
    except Exception as error:  # noqa: BLE001
        print(f"no sheet of pictures: {error}", flush=True)


def paint_sheet(model: Path, target: Path, device: str) -> None:
    """Eight prompts, three seeds each, side by side."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    pipeline.to(device).set_progress_bar_config(disable=True)
    rows = []
    for seed in range(3):
        made = pipeline(
            list(PROMPTS),
            num_inference_steps=20,
            guidance_scale=3.0,
            height=128,
            width=128,
            generator=torch.Generator(device).manual_seed(seed),
            output_type="np",
        ).images
        rows.append(np.concatenate(list(made), 1))
    Image.fromarray((np.concatenate(rows, 0) * 255).round().astype(np.uint8)).save(target)


if __name__ == "__main__":
    main()
