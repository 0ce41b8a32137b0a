"""``tokens render``: the picture holds the word, the parent and the token, and what it shows is what predict does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from token_registry import Registry

from ovam_labeler.sharing.panels import Panel, draw


def disc(path: Path) -> np.ndarray:
    y, x = np.mgrid[:120, :200]
    mask = (y - 60) ** 2 + (x - 70) ** 2 < 900
    pixels = np.full((120, 200, 3), 170, np.uint8)
    pixels[mask] = (210, 40, 30)
    Image.fromarray(pixels).save(path)
    return mask


def test_word_parent_and_token_side_by_side(registry: Registry, tmp_path: Path) -> None:
    disc(tmp_path / "disc.png")
    registry.add("cat")
    registry.add("cat", push=0.2, parent_version=1)
    out = tmp_path / "new folder" / "cat.png"
    told = registry.json("render", "cat", tmp_path / "disc.png", "--out", out)
    assert [(p["panel"], p["version"]) for p in told["panels"]] == [("word", None), ("parent v1", 1), ("token v2", 2)]
    assert all(0 <= p["presence"] <= 1 and 0 <= p["area"] <= 1 for p in told["panels"])
    # Version 1 is the word's own pair: it draws what the word draws, but is cut at a token's threshold.
    with Image.open(out) as sheet:
        assert sheet.width > 4 * 360 and sheet.height > 2 * 216
    assert [p.name for p in out.parent.iterdir()] == ["cat.png"]
    assert "'zebra'" in registry.run("render", "zebra", tmp_path / "disc.png", "--out", out, code=2)[1]
    registry.add("dog", fingerprint={"space": "f" * 64, "model": "sd"})
    assert "base model 'sd'" in registry.run("render", "dog", tmp_path / "disc.png", "--out", out, code=2)[1]


def test_tall_wide_and_tiny_images_are_drawn(tmp_path: Path) -> None:
    for height, width in ((1, 1), (3, 900), (900, 3), (64, 48)):
        panel = Panel("word", np.zeros((4, 4), np.float32), np.zeros((height, width), bool), 0.5, None)
        draw(np.zeros((height, width, 3), np.uint8), [panel], tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as sheet:
            assert sheet.width >= 2 and sheet.height >= 2
