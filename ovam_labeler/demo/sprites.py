"""The held-out sprites: drawings that training never saw, shipped with the package."""

from __future__ import annotations

import io
import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ovam_labeler.demo.scenes import Concept, Sprite

PACK = Path(__file__).with_name("assets") / "held_out_sprites.zip"


@lru_cache(maxsize=2)
def load_pack(split: Literal["test", "val"] = "test", path: Path = PACK) -> tuple[Concept, ...]:
    """The pack's concepts with their drawings.

    Args:
        split: ``"test"`` for figures that are reported; thresholds and recipes are tuned on ``"val"`` only.
    """
    sprites: dict[str, list[Sprite]] = {}
    known: set[str] = set()
    with zipfile.ZipFile(path) as archive:
        for entry in json.loads(archive.read("index.json"))["sprites"]:
            if entry["split"] != split:
                continue
            name = entry["concept"]
            with Image.open(io.BytesIO(archive.read(entry["file"]))) as image:
                pixels = np.asarray(image.convert("RGBA"))
            sprites.setdefault(name, []).append(Sprite(name, entry["style"], entry["family"], pixels))
            if entry["kind"] == "known":
                known.add(name)
    return tuple(Concept(name, name in known, tuple(drawn)) for name, drawn in sorted(sprites.items()))
