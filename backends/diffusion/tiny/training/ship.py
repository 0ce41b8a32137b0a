"""Stage ``ship``: the drawn sprites as one small archive, for a machine that reaches no registry (a borrowed GPU).

``ship --pack FILE`` writes it from a run folder in which ``data`` and ``extra`` are done; ``ship --unpack FILE`` restores
what ``pool`` and ``unet`` need. Drawings of test-only styles are left out. About 25 MB.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .data import SPRITE_SIZE
from .library import Library
from .sources import ALL_STYLES, run_folder

PLAIN = ("meta.json", "split.json", "extra.json", "table.npy", "extra_table.npy")
SHIPPED_SIZE, QUALITY = 96, 70
PARTS = (("sprites", "table"), ("extra_sprites", "extra_table"))


def pack(target: Path) -> None:
    """Write the archive."""
    folder = run_folder()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in [*PLAIN, *(path.name for path in folder.glob("alike-*.npy"))]:
            archive.write(folder / name, name, zipfile.ZIP_DEFLATED)
        for sprites, table in PARTS:
            pixels, styles = np.load(folder / f"{sprites}.npy", mmap_mode="r"), np.load(folder / f"{table}.npy")[:, 1]
            for row, style in enumerate(styles.tolist()):
                if ALL_STYLES[style].test_only:
                    continue
                small = cv2.resize(pixels[row], (SHIPPED_SIZE, SHIPPED_SIZE), interpolation=cv2.INTER_AREA)
                buffer = io.BytesIO()
                Image.fromarray(small).save(buffer, "WEBP", quality=QUALITY, alpha_quality=70, method=2)
                archive.writestr(f"{sprites}/{row}.webp", buffer.getvalue())
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def _decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        small = np.asarray(image.convert("RGBA"))
    return cv2.resize(small, (SPRITE_SIZE, SPRITE_SIZE), interpolation=cv2.INTER_CUBIC)


def unpack(source: Path) -> None:
    """Restore sprites and tables into the run folder."""
    folder = run_folder()
    with zipfile.ZipFile(source) as archive, multiprocessing.Pool(os.cpu_count()) as pool:
        for name in archive.namelist():
            if "/" not in name:
                (folder / name).write_bytes(archive.read(name))
        for sprites, table in PARTS:
            rows = len(np.load(folder / f"{table}.npy"))
            out = np.zeros((rows, SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
            names = [n for n in archive.namelist() if n.startswith(f"{sprites}/")]
            decoded = pool.imap(_decode, (archive.read(n) for n in names), 64)
            for name, pixels in zip(names, decoded, strict=True):
                out[int(Path(name).stem)] = pixels
            np.save(folder / f"{sprites}.npy", out)
    print(f"{folder}: unpacked {source}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pack", type=Path)
    what.add_argument("--unpack", type=Path)
    arguments = parser.parse_args()
    if arguments.pack is not None:
        _ = Library().alike  # takes time on the other side that is better spent on training
        pack(arguments.pack)
    else:
        unpack(arguments.unpack)


if __name__ == "__main__":
    main()
