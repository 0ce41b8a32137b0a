"""A small pack of drawn sprites and a composer that places them: scenes without the shipped pack."""

from __future__ import annotations

import numpy as np
import pytest

from ovam_labeler.demo.scenes import Concept, Sprite


def disc(colour: tuple[int, int, int], side: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    inside = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 2 - 1) ** 2
    sprite = np.zeros((side, side, 4), np.uint8)
    sprite[inside] = (*colour, 255)
    return sprite


def make_pack(novel: int, known: int, families: int = 3) -> list[Concept]:
    pack = []
    for i in range(novel + known):
        name = f"{'new' if i < novel else 'old'} {i}"
        sprites = tuple(
            Sprite(name, f"style{f}", f"family{f}", disc(((37 * i) % 256, (91 * f) % 256, 120)))
            for f in range(families)
        )
        pack.append(Concept(name, i >= novel, sprites))
    return pack


@pytest.fixture
def pack() -> list[Concept]:
    return make_pack(8, 6)
