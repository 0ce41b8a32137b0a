"""Train on a borrowed GPU with one command, repeated while the loan lasts::

    python -m backends.diffusion.tiny.training.gpu --ship ship.zip --minutes 8 --until 24 --out $OUT

Unpacks the sprites, starts from the shipped weights, composes scenes in as many processes as there are spare cores (all
the while: new parts are taken up when the old ones are used up), trains the phase ``finer`` for some minutes, and leaves
the average weights, the log and the checkpoint's step in ``--out``. A second call goes on where the first stopped, as long as
the run folder is kept. ``--until`` is the length of the whole phase, over all calls: the rate is annealed towards it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import save_file

from .export import newest_checkpoint
from .sources import run_folder

PACKAGE = "backends.diffusion.tiny.training"
#: Of every eight composing processes, so many make each kind.
KINDS = ("plain160", "plain160", "plain160", "new160", "plain224", "plain160", "plain224", "new224")


def run(stage: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"{PACKAGE}.{stage}", *arguments], check=True)


def start_composing(processes: int, first: int, pairs: int) -> list[subprocess.Popen[bytes]]:
    """Processes that write pool parts until they are ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = []
    for k in range(processes):
        parts = [f"{KINDS[k % len(KINDS)]}-{first + k + i * processes}={pairs}" for i in range(100)]
        command = [sys.executable, "-m", f"{PACKAGE}.pool", *parts]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT))
    return started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ship", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of this call, all in all")
    parser.add_argument("--until", type=float, default=24, help="training minutes of the whole phase")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, help="scene pairs a step")
    parser.add_argument("--part-pairs", type=int, default=4000, help="scene pairs a pool part")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    a = parser.parse_args()
    end, folder = time.time() + a.minutes * 60, run_folder()
    if not (folder / "extra_sprites.npy").exists():
        run("ship", "--unpack", str(a.ship))
    if not (folder / "unet-start.pt").exists():
        run("warm")
    parts = folder / "pool"
    composing = start_composing(a.processes, len(list(parts.glob("c.*.npy"))) + 1000, a.part_pairs)
    try:
        while not all(any(parts.glob(f"z.{kind}-*.npy")) for kind in ("plain160", "new160")):
            time.sleep(2)
        most = max(0.1, (end - time.time() - 30) / 60)  # half a minute to start and to save
        arguments = ["--words-minutes=0", "--tokens-minutes=0", f"--finer-minutes={a.until}", f"--most-minutes={most}"]
        arguments += [f"--device={a.device}"] + [f"--pairs={a.pairs}"] * (a.pairs is not None)
        with (folder / "unet.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", f"{PACKAGE}.unet", *arguments], check=True, stdout=log, stderr=subprocess.STDOUT
            )
    finally:
        for process in composing:
            process.terminate()
    a.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "unet.log", a.out / "unet.log")
    average = {name: value.half().cpu() for name, value in newest_checkpoint()["average"].items()}
    save_file(average, a.out / "average.safetensors")
    print((folder / "unet.log").read_text().splitlines()[-1])


if __name__ == "__main__":
    main()
