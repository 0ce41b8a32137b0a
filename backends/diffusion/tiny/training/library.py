"""The drawn sprites and their split, and the sampling of pairs of scenes from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .composer import compose
from .sources import STYLES, run_folder


@dataclass
class Scene:
    """A composed picture: image, visible masks, and per object its concept (negative: an object without a word)."""

    image: np.ndarray
    masks: np.ndarray
    concepts: list[int]


class Library:
    """Sprites by concept and style. ``train`` sprites exclude held-out designs and test-only styles."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or run_folder()
        meta = json.loads((folder / "meta.json").read_text())
        self.split = json.loads((folder / "split.json").read_text())
        self.pixels = np.load(folder / "sprites.npy", mmap_mode="r")
        self.table = np.load(folder / "table.npy")
        self.concepts: list[dict] = meta["concepts"]
        self.labels = [c["label"] for c in self.concepts]
        self.index = {label: i for i, label in enumerate(self.labels)}
        self.family = [s.family for s in STYLES]
        self.base = [self.index[label] for label in self.split["known"]]
        self.held = {self.index[k]: set(v) for k, v in self.split["held_out_families"].items()}
        self.train: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(self.labels))}
        self.held_out: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(self.labels))}
        self.unseen: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(self.labels))}
        for row, (concept, style) in enumerate(self.table.tolist()):
            if STYLES[style].test_only:
                part = self.unseen
            elif STYLES[style].family in self.held.get(concept, ()):
                part = self.held_out
            else:
                part = self.train
            part[concept].append((style, row))

    def ids(self, name: str) -> list[int]:
        """Concept numbers of a list in the split, e.g. ``novel_test``."""
        return [self.index[label] for label in self.split[name]]

    def two_of(self, concept: int, rng: np.random.Generator, same: float = 0.25) -> list[tuple[int, int]]:
        """Two training drawings of a concept, of different families unless ``same`` strikes or there is only one."""
        drawings = self.train[concept]
        first = drawings[rng.integers(len(drawings))]
        others = [d for d in drawings if self.family[d[0]] != self.family[first[0]]]
        pool = drawings if rng.random() < same or not others else others
        return [first, pool[rng.integers(len(pool))]]

    def pair(self, rng: np.random.Generator, concept: int) -> list[Scene]:
        """Two scenes that share ``concept``, each with 0 to 3 distractors."""
        scenes = []
        for _, row in self.two_of(concept, rng):
            wanted = 1 + int(rng.choice([0, 1, 2, 3], p=[0.15, 0.4, 0.3, 0.15]))
            rows, ids = [row], [concept]
            while len(ids) < wanted:
                other = self.base[rng.integers(len(self.base))]
                if other not in ids:
                    rows.append(self.train[other][rng.integers(len(self.train[other]))][1])
                    ids.append(other)
            image, masks = compose([self.pixels[r] for r in rows], rng)
            scenes.append(Scene(image, masks, ids))
        return scenes
