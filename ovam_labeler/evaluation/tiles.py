"""Whether reading in parts helps with small objects: ``python -m ovam_labeler.evaluation.tiles --across 4 --tiles 4``.

Large pictures are made of composed validation scenes side by side, cut out at a random place so that parts do not fall on
scenes.  Known words are offered, half of them absent; the product proposes, whole and in parts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.scenes import Concept
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.domain import Label
from ovam_labeler.evaluation.metrics import auc, iou, paired_bootstrap
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.options import project_options
from ovam_labeler.settings import Settings
from token_store.entities import Scope

#: Side of a scene in pixels, labels that are there and that are not, and the fewest pixels of an object that counts.
SCENE, OFFERED, FEWEST = 192, 6, 50


def picture(
    pack: Sequence[Concept], rng: np.random.Generator, across: int
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """uint8 (across * 192, across * 192, 3) and a bool mask for each concept in it."""
    full = (across + 1) * SCENE
    canvas = np.zeros((full, full, 3), np.uint8)
    masks: dict[str, np.ndarray] = {}
    for row in range(0, full, SCENE):
        for column in range(0, full, SCENE):
            chosen = [pack[i] for i in rng.permutation(len(pack))[: int(rng.integers(1, 3))]]
            sprites = [c.sprites[rng.integers(len(c.sprites))] for c in chosen]
            image, soft = compose([s.pixels for s in sprites], rng, (SCENE, SCENE))
            place = (slice(row, row + SCENE), slice(column, column + SCENE))
            canvas[place] = image
            for sprite, mask in zip(sprites, soft, strict=True):
                masks.setdefault(sprite.concept, np.zeros((full, full), bool))[place] |= mask > 0.5
    top, left = rng.integers(0, SCENE, 2)
    window = (slice(top, top + across * SCENE), slice(left, left + across * SCENE))
    seen = {name: mask[window] for name, mask in masks.items()}
    return canvas[window], {name: mask for name, mask in seen.items() if mask.sum() >= FEWEST}


def measure(across: int, tiles: Sequence[int], count: int, seed: int, settings: Settings) -> dict[str, Any]:
    """Mean IoU of labels that are there (drawn whether judged present or not), AUC of the presence judgement, seconds."""
    from ovam_labeler.application import build_application

    pack = [c for c in load_pack("val") if c.has_word]
    found: dict[int, dict[str, list[float]]] = {n: {"iou": [], "there": [], "absent": [], "seconds": []} for n in tiles}
    of: list[int] = []
    with tempfile.TemporaryDirectory(prefix="ovam-tiles-") as folder:
        app = build_application(settings.model_copy(update={"data_dir": Path(folder)}))
        try:
            for number in range(count):
                rng = np.random.default_rng([seed, across, number])
                pixels, truth = picture(pack, rng, across)
                image = load_image(encode_png(np.ascontiguousarray(pixels)))
                absent = [c.name for c in pack if c.name not in truth]
                labels = [Label(name) for name in [*list(truth)[:OFFERED], *absent[:OFFERED]]]
                for n in tiles:
                    options = replace(project_options(app.settings), overlap="independent", presence=True, tiles=n)
                    began = time.perf_counter()
                    judged = app.proposer.propose(image, labels, Scope("tiles", "1"), options)
                    found[n]["seconds"].append(time.perf_counter() - began)
                    drawn = app.proposer.propose(image, labels, Scope("tiles", "1"), replace(options, presence=False))
                    for p, mask in zip(judged, drawn, strict=True):
                        found[n]["there" if p.label in truth else "absent"].append(p.presence)
                        if p.label in truth:
                            if n == tiles[0]:
                                of.append(number)
                            found[n]["iou"].append(iou(mask.mask, truth[p.label]))
                print(f"{number + 1} of {count}", file=sys.stderr, flush=True)
        finally:
            app.close()
    pictures = np.array(of)
    figures: dict[str, Any] = {"across": across, "pictures": count, "labels": len(found[tiles[0]]["iou"])}
    for n in tiles:
        row = found[n]
        figures[f"tiles_{n}"] = {
            "iou": float(np.mean(row["iou"])),
            "presence_auc": auc(row["there"], row["absent"]) if row["absent"] else None,
            "seconds_a_picture": float(np.mean(row["seconds"])),
        }
        if n != tiles[0]:
            gain = np.array(row["iou"]) - np.array(found[tiles[0]]["iou"])
            # Labels of one picture share its reading: pictures are resampled, not labels.
            of_picture = [float(gain[pictures == k].mean()) for k in np.unique(pictures)]
            figures[f"tiles_{n}"]["gain_interval"] = paired_bootstrap(of_picture)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--across", type=int, default=4, help="scenes along a side of a picture")
    parser.add_argument(
        "--tiles", type=int, nargs="+", default=[1, 4], help="parts along a side; the first is compared with"
    )
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    figures = measure(arguments.across, arguments.tiles, arguments.pictures, arguments.seed, Settings())
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
