"""Stage ``data``: fetch the emoji packages, draw every concept in every style, save sprites, names and the split.

Writes ``sprites.npy`` (N, 128, 128, 4), ``table.npy`` (concept, style) and ``meta.json``, ``split.json``.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .concepts import Concept, load_concepts
from .sources import NAMES_PACKAGE, STYLES, Style, package_folder, run_folder
from .split import make_split

SPRITE_SIZE = 128
FEWEST_STYLES = 4


def fetch_packages(styles: Sequence[Style] = STYLES) -> None:
    """Unpack the packages of emoji names and of the styles into the run folder."""
    for package in [NAMES_PACKAGE, *(style.package for style in styles)]:
        fetch_package(package)


def fetch_package(package: str) -> None:
    """Unpack one npm package into the run folder (with ``npm pack``, by exact name and version), if it is not there."""
    folder = package_folder(package)
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is needed once, to fetch the packages of drawings")
    out = subprocess.run(
        [npm, "pack", package, "--silent"], cwd=folder.parent, check=True, capture_output=True, text=True
    )
    archive = folder.parent / out.stdout.strip().splitlines()[-1]
    with tarfile.open(archive) as tar:
        tar.extractall(folder.parent / "unpacked", filter="data")
    (folder.parent / "unpacked/package").rename(folder)
    archive.unlink()


def draw(source: str | Path, size: int, square: bool = True) -> np.ndarray | None:
    """RGBA sprite cropped to what is opaque, longest side ``size``; centred on a square if ``square``."""
    if isinstance(source, Path):
        image = Image.open(source).convert("RGBA")
    else:
        import resvg_py  # a machine that only trains has none

        png = resvg_py.svg_to_bytes(svg_string=source, width=max(128, round(size * 4 / 3)))
        image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    rows, columns = np.where(np.asarray(image)[..., 3] > 40)
    if len(rows) < 60:
        return None
    image = image.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    factor = size / max(image.size)
    width, height = max(4, round(image.width * factor)), max(4, round(image.height * factor))
    pixels = np.asarray(image).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255  # premultiplied: no dark fringe
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    if square:
        canvas = np.zeros((size, size, 4), np.float32)
        top, left = (size - height) // 2, (size - width) // 2
        canvas[top : top + height, left : left + width] = pixels
        pixels = canvas
    alpha = np.clip(pixels[..., 3:], 0, 255)
    pixels[..., :3] = np.where(alpha > 1, pixels[..., :3] * 255 / np.maximum(alpha, 1), 0)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _job(args: tuple[int, int, str | Path]) -> tuple[int, int, np.ndarray | None]:
    concept, style, source = args
    try:
        return concept, style, draw(source, SPRITE_SIZE)
    except (ValueError, OSError):  # an SVG that the renderer refuses
        return concept, style, None


def main() -> None:
    fetch_packages()
    concepts = load_concepts()
    order = {style.name: i for i, style in enumerate(STYLES)}
    jobs = [(i, order[name], source) for i, c in enumerate(concepts) for name, source in c.sources.items()]
    with multiprocessing.Pool(2) as pool:
        drawn = [(c, s, pixels) for c, s, pixels in pool.imap(_job, jobs, 32) if pixels is not None]
    drawn.sort(key=lambda r: r[:2])
    counts = np.bincount([r[0] for r in drawn], minlength=len(concepts))
    kept = {old: new for new, old in enumerate(i for i in range(len(concepts)) if counts[i] >= FEWEST_STYLES)}
    drawn = [r for r in drawn if r[0] in kept]
    folder = run_folder()
    np.save(folder / "sprites.npy", np.stack([r[2] for r in drawn]))
    table = np.array([(kept[r[0]], r[1]) for r in drawn], np.int32)
    np.save(folder / "table.npy", table)
    chosen: list[Concept] = [concepts[i] for i in kept]
    meta = {
        "styles": [s.name for s in STYLES],
        "concepts": [{"code": c.code, "label": c.label, "names": c.names, "tags": c.tags} for c in chosen],
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    styles_of = [[STYLES[s].name for s in table[table[:, 0] == i, 1]] for i in range(len(chosen))]
    (folder / "split.json").write_text(json.dumps(make_split([c.label for c in chosen], styles_of), indent=1))
    print(f"{len(chosen)} concepts, {len(table)} sprites")
    for name, index in order.items():
        print(name, int((table[:, 1] == index).sum()))


if __name__ == "__main__":
    main()
