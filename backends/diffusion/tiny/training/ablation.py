"""What denoising, grounding and episodes each bring: equal small budgets of scenes, the UNet from nothing.

``python -m backends.diffusion.tiny.training.ablation denoising|grounding|episodes [--seed N] [--scenes N]`` trains one arm in a run
folder of its own beside the main one (data, autoencoder and text encoder are shared by links) and exports it there; an interrupted
arm continues. ``python -m ovam_labeler.evaluation.embedded --model FOLDER --quick`` then gives its figures.

``... ablation all --device cuda --pairs 32 --scenes 60000 --out $OUT``: composes the scenes in all cores, trains the three arms and a
second seed of the last beside each other on one GPU, and leaves ``ARM-SEED.safetensors``, which ``export --average`` takes.

The text layers begin as they were shipped, in every arm: what differs is the UNet, which begins from nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from .export import WEIGHTS, default_settings, newest_checkpoint, write_folder
from .objective import Weights
from .sources import RUN_VARIABLE, run_folder
from .unet import Options, Phase, Trainer

SIZE = 128  # pixels a side of the scenes
SHARED = "split.json meta.json extra.json sprites.npy table.npy extra_sprites.npy extra_table.npy pool vae text_encoder tokenizer"
#: Two phases of each arm, half the scenes each: episodes cannot begin before words are bound.
ARMS = {
    "denoising": (
        Weights(False, denoise=1.0, high=1.0, spoken=0.9, ground=False),
        Weights(False, denoise=1.0, high=1.0, spoken=0.9, ground=False),
    ),
    "grounding": (Weights(False), Weights(True, absent=3.0, episodes=False)),
    "episodes": (Weights(False), Weights(True, absent=3.0)),
}
RATES = (1.5e-3, 1.1e-3)
PACKAGE = "backends.diffusion.tiny.training"
LAST = "unet-tokens.pt"


def arm_folder(arm: str, seed: int) -> Path:
    """The arm's run folder, linked to the main one's data."""
    main = run_folder().resolve()
    folder = main.parent / f"ablation-{arm}-{seed}"
    folder.mkdir(exist_ok=True)
    for name in SHARED.split():
        if (main / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to(main / name)
    return folder


def compose_parts(scenes: int) -> None:
    """Enough parts of scenes for one pass, made in all cores."""
    cores = os.cpu_count() or 2
    jobs = []
    for kind, share in (("plain", 0.78), ("new", 0.22)):
        count = max(1, round(cores * share))
        pairs = max(2, round(scenes * share / 2 / count))
        jobs += [f"{kind}{SIZE}-{k}={pairs}" for k in range(count)]
    jobs = [job for job in jobs if not (run_folder() / f"pool/c.{job.split('=')[0]}.npy").exists()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen([sys.executable, "-m", f"{PACKAGE}.pool", job], env=environment) for job in jobs]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError("scenes could not be composed")


def run_all(arguments: list[str], out: Path, scenes: int) -> None:
    """The three arms and a second seed, beside each other; their averages in ``out``."""
    compose_parts(scenes)
    runs = [*((arm, 0) for arm in ARMS), ("episodes", 1)]
    commands = [[sys.executable, "-m", f"{PACKAGE}.ablation", arm, f"--seed={seed}", *arguments] for arm, seed in runs]
    started = [subprocess.Popen(command) for command in commands]
    failed = [run for run, process in zip(runs, started, strict=True) if process.wait()]
    out.mkdir(parents=True, exist_ok=True)
    for arm, seed in runs:
        if (arm, seed) not in failed:
            state = torch.load(arm_folder(arm, seed) / LAST, map_location="cpu", weights_only=True)
            save_file(
                {n: v.half().contiguous() for n, v in state["average"].items()}, out / f"{arm}-{seed}.safetensors"
            )
    if failed:
        raise RuntimeError(f"these arms failed: {failed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", choices=[*sorted(ARMS), "all"])
    parser.add_argument("--out", type=Path, default=Path("ablation"), help="of all arms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=12_000)
    parser.add_argument("--pairs", type=int, default=8, help="scene pairs a step")
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args()
    if a.arm == "all":
        run_all([f"--scenes={a.scenes}", f"--pairs={a.pairs}", f"--device={a.device}"], a.out, a.scenes)
        return
    torch.set_num_threads(1)
    folder = arm_folder(a.arm, a.seed)
    os.environ[RUN_VARIABLE] = str(folder)
    previous = None
    for k, weights in enumerate(ARMS[a.arm]):
        phase = Phase(
            ("words", "tokens")[k],
            0,
            (2.0, 1.0)[k],
            RATES[k],
            60,
            weights,
            close=SIZE,
            scenes=a.scenes // 2,
        )
        trainer = Trainer(phase, 0, 1, Options(a.device, (a.pairs,), seed=a.seed))
        trainer.load(previous)
        trainer.run()
        previous = trainer.path
    state = newest_checkpoint()
    print(write_folder(folder / "weights", default_settings(WEIGHTS / "ovam.json", state), state), "bytes in", folder)


if __name__ == "__main__":
    main()
