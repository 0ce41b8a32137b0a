"""Repeat everything, from the package registries to ``weights/``: ``python -m backends.diffusion.tiny.training.all``.

Stages that have left their result are skipped, so an interrupted run continues. Thresholds and presence weights are
measured afterwards, on the exported folder and as the product reads it: ``python -m ovam_labeler.evaluation.calibrate
--write backends/diffusion/tiny/weights/ovam.json``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .pool import PARTS
from .sources import run_folder

PACKAGE = __package__ or "backends.diffusion.tiny.training"
# stage, and the file or folder that shows it is done (None: always run)
STAGES: tuple[tuple[str, str | None], ...] = (
    ("data", "split.json"),
    ("autoencoder", "vae"),
    ("text", "text_encoder"),
    ("extra", "extra.json"),
    ("pool", f"pool/z.{PARTS[-1].split('=')[0]}.npy"),
    ("unet", None),
    ("meaning", "unet-meaning.pt"),
    ("painter", None),
    ("export", None),
    ("pack", None),
)


def main() -> None:
    folder: Path = run_folder()
    for stage, result in STAGES:
        if result is not None and (folder / result).exists():
            print(f"{stage}: done before", flush=True)
            continue
        print(f"{stage}: running", flush=True)
        subprocess.run([sys.executable, "-m", f"{PACKAGE}.{stage}"], check=True)


if __name__ == "__main__":
    main()
