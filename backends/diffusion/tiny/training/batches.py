"""Batches of scene pairs from the pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pool import GRID, NOTHING, SLOTS, WORDLESS
from .sources import run_folder


@dataclass
class Batch:
    """B scenes; scenes 2i and 2i+1 share the object of slot 0."""

    latents: Tensor  # (B, 16, GRID, GRID)
    masks: Tensor  # (B, SLOTS, GRID, GRID), 0..1
    concepts: np.ndarray  # (B, SLOTS)
    wordless: Tensor  # (B,) bool

    @property
    def foreground(self) -> Tensor:
        """(B, 1, GRID, GRID): any object."""
        used = torch.from_numpy(self.concepts != NOTHING)[..., None, None]
        return (self.masks * used).sum(1, keepdim=True).clamp(max=1)

    def targets(self, words: list[int]) -> Tensor:
        """(B, W, GRID, GRID): the mask of each word in each scene."""
        place = {c: k for k, c in enumerate(words)}
        result = torch.zeros(len(self.latents), len(words), GRID, GRID)
        for b in range(len(self.latents)):
            for s in range(SLOTS):
                if self.concepts[b, s] >= 0:
                    result[b, place[int(self.concepts[b, s])]] += self.masks[b, s]
        return result


class Pool:
    """Parts on disk, drawn without replacement in random order; a fixed share of the pairs is wordless."""

    def __init__(self, rng: np.random.Generator, wordless_share: float) -> None:
        self.rng, self.share = rng, wordless_share
        folder = run_folder() / "pool"
        self.parts: dict[bool, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        self.pairs: dict[bool, np.ndarray] = {}
        for wordless, kind in ((False, "plain"), (True, "new")):
            names = sorted(p.name.split(".")[1] for p in folder.glob(f"z.{kind}*.npy"))
            self.parts[wordless] = [
                tuple(np.load(folder / f"{k}.{n}.npy", mmap_mode="r") for k in "zmc") for n in names
            ]
            self.pairs[wordless] = np.cumsum([0] + [len(p[2]) // 2 for p in self.parts[wordless]])
        self.queue: dict[bool, list[int]] = {False: [], True: []}

    def draw(self, pairs: int) -> Batch:
        """``pairs`` pairs, the wordless ones first."""
        new = int(pairs * self.share) + (self.rng.random() < pairs * self.share % 1)
        rows = [self._next(k < new) for k in range(pairs)]
        latents, masks, concepts = (
            np.concatenate([np.asarray(part[k][2 * i : 2 * i + 2]) for part, i in rows]) for k in range(3)
        )
        return Batch(
            torch.from_numpy(latents).float(),
            torch.from_numpy(masks).float() / 255,
            concepts,
            torch.from_numpy(concepts[:, 0] == WORDLESS),
        )

    def _next(self, wordless: bool) -> tuple[tuple[np.ndarray, ...], int]:
        if not self.queue[wordless]:
            self.queue[wordless] = self.rng.permutation(self.pairs[wordless][-1]).tolist()
        i = self.queue[wordless].pop()
        part = int(np.searchsorted(self.pairs[wordless], i, "right")) - 1
        return self.parts[wordless][part], int(i - self.pairs[wordless][part])
