"""Which concepts look alike: the hard distractors of scenes and the hard rivals of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

CELLS = 8  # a drawing is compared as CELLS x CELLS premultiplied colours


def appearance(sprite: np.ndarray) -> np.ndarray:
    """Colour layout and colour content of one RGBA sprite, a unit vector; mirrored drawings are alike."""
    small = cv2.resize(sprite, (CELLS, CELLS), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    small[..., :3] = (small[..., :3] - 0.5) * small[..., 3:]
    small = (small + small[:, ::-1]) / 2
    weight = small[..., 3].sum() + 1e-6
    mean = small[..., :3].sum((0, 1)) / weight
    parts = [small[..., :3].ravel(), small[..., 3].ravel() - small[..., 3].mean(), 6 * mean]
    vector = np.concatenate([p / (np.linalg.norm(p) + 1e-6) for p in parts])
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def lookalikes(
    pixels: Mapping[int, Sequence[np.ndarray]], most: int = 12, most_drawings: int = 4
) -> dict[int, np.ndarray]:
    """The ``most`` concepts nearest to each, by the mean appearance of up to ``most_drawings`` of their drawings."""
    ids = [c for c, sprites in pixels.items() if len(sprites)]
    mean = np.stack([np.mean([appearance(s) for s in list(pixels[c])[:most_drawings]], 0) for c in ids])
    mean -= mean.mean(0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    near = np.argsort(-mean @ mean.T, axis=1)
    return {c: np.array([ids[k] for k in row if ids[k] != c][:most]) for c, row in zip(ids, near, strict=True)}


def conflicts(names: Sequence[Sequence[str]], most: int = 8) -> list[set[int]]:
    """Per concept the others that share a name, or a name's last word: neither is a fair negative of the other.

    Last words of more than ``most`` concepts (``face``) say nothing.
    """
    groups: dict[str, set[int]] = {}
    for i, some in enumerate(names):
        for name in some:
            groups.setdefault(name.lower(), set()).add(i)
            groups.setdefault("last " + name.lower().split()[-1], set()).add(i)
    result: list[set[int]] = [set() for _ in names]
    for key, members in groups.items():
        if not key.startswith("last ") or len(members) <= most:
            for i in members:
                result[i] |= members - {i}
    return result
