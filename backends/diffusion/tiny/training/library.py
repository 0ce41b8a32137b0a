"""The drawn sprites and their split, and the sampling of pairs of scenes from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .composer import compose
from .lookalikes import conflicts, lookalikes
from .restyle import restyle
from .sources import ALL_STYLES, run_folder

DISTRACTORS = (0.15, 0.4, 0.3, 0.15)  # how often a scene has 0, 1, 2, 3 of them
ALIKE = 0.35  # share of the distractors that look like the object
PLAINEST = ("fluent-flat", "twemoji", "noto", "noto-v1", "emojione", "fxemoji", "streamline", "fluent", "fluent3d")
RESTYLED = 0.5  # share of the drawings that are changed as if by another hand


@dataclass
class Scene:
    """A composed picture: image, visible masks, and per object its concept (negative: an object without a word)."""

    image: np.ndarray
    masks: np.ndarray
    concepts: list[int]


class Library:
    """Sprites by concept and style. ``train`` sprites exclude held-out designs and test-only styles."""

    def __init__(self, folder: Path | None = None, extra: bool = True) -> None:
        self.folder = folder = folder or run_folder()
        meta = json.loads((folder / "meta.json").read_text())
        self.split = json.loads((folder / "split.json").read_text())
        self.pixels: np.ndarray | Rows = np.load(folder / "sprites.npy", mmap_mode="r")
        self.table = np.load(folder / "table.npy")
        self.concepts: list[dict] = meta["concepts"]
        further: list[int] = []
        if extra and (folder / "extra.json").exists():
            self.pixels = Rows(self.pixels, np.load(folder / "extra_sprites.npy", mmap_mode="r"))
            self.table = np.concatenate([self.table, np.load(folder / "extra_table.npy")])
            added = json.loads((folder / "extra.json").read_text())
            further = list(range(len(self.concepts), len(self.concepts) + len(added)))
            self.concepts = self.concepts + added
        self.labels = [c["label"] for c in self.concepts]
        self.index = {label: i for i, label in enumerate(self.labels)}
        self.family = [s.family for s in ALL_STYLES]
        self.known = [self.index[label] for label in self.split["known"]]
        self.base = self.known + further
        self.held = {self.index[k]: set(v) for k, v in self.split["held_out_families"].items()}
        self.train: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(self.labels))}
        self.held_out: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(self.labels))}
        self.unseen: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(self.labels))}
        for row, (concept, style) in enumerate(self.table.tolist()):
            if ALL_STYLES[style].test_only:
                part = self.unseen
            elif ALL_STYLES[style].family in self.held.get(concept, ()):
                part = self.held_out
            else:
                part = self.train
            part[concept].append((style, row))
        self.conflicts = conflicts([[c["label"], *c["names"]] for c in self.concepts])

    @cached_property
    def alike(self) -> dict[int, np.ndarray]:
        """The training concepts that look most like each training concept; kept in the run folder (it takes 20 s)."""
        cache = self.folder / f"alike-{len(self.table)}.npy"
        if not cache.exists():
            found = lookalikes({c: [self.pixels[r] for _, r in self.train[c][:4]] for c in self.base})
            temporary = cache.with_suffix(f".{os.getpid()}.tmp.npy")  # many processes may come here at once
            np.save(temporary, np.array([found[c] for c in self.base]))
            temporary.replace(cache)
        return dict(zip(self.base, np.load(cache), strict=True))

    @cached_property
    def plainest(self) -> dict[int, int]:
        """Row of the one drawing that stands for each known concept when painting is learned: the flattest style that has it."""
        order = {name: k for k, name in enumerate(PLAINEST)}
        rank = {i: order.get(style.name, len(order)) for i, style in enumerate(ALL_STYLES)}
        return {c: min(self.train[c], key=lambda drawing: rank[drawing[0]])[1] for c in self.known}

    def drawing(self, row: int, rng: np.random.Generator) -> np.ndarray:
        """A sprite for a training scene, uint8 RGBA: often restyled."""
        sprite = np.asarray(self.pixels[row])
        return restyle(sprite, rng) if rng.random() < RESTYLED else sprite

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

    def distractor(self, concept: int, rng: np.random.Generator) -> int:
        """Another training concept: now and then one that looks like ``concept``, mostly an emoji."""
        if rng.random() < ALIKE:
            return int(rng.choice(self.alike[concept]))
        some = self.known if rng.random() < 0.75 else self.base
        return int(some[rng.integers(len(some))])

    def pair(self, rng: np.random.Generator, concept: int, size: int = 128) -> list[Scene]:
        """Two scenes that share ``concept``, each with 0 to 3 distractors, ``size`` pixels a side."""
        scenes = []
        for _, row in self.two_of(concept, rng):
            wanted = 1 + int(rng.choice(4, p=DISTRACTORS))
            rows, ids = [row], [concept]
            while len(ids) < wanted:
                other = self.distractor(concept, rng)
                if other not in ids and not self.conflicts[other] & set(ids):
                    rows.append(self.train[other][rng.integers(len(self.train[other]))][1])
                    ids.append(other)
            scenes.append(Scene(*composed([self.drawing(r, rng) for r in rows], rng, size), ids))
        return scenes


def composed(sprites: Sequence[np.ndarray], rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A square scene. Below 200 pixels it is a closer view: objects have the pixels that a scene of 224 gives them."""
    if size >= 200:
        return compose(sprites, rng, (size, size))
    most = (0.95, 0.85, 0.65, 0.55)[len(sprites) - 1]
    return compose(sprites, rng, (size, size), scales=[rng.uniform(0.3, most) for _ in sprites])


class Rows:
    """Sprites of two arrays under one numbering."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, row: int) -> np.ndarray:
        return np.asarray(self.first[row] if row < len(self.first) else self.second[row - len(self.first)])
