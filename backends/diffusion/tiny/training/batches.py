"""Batches of scene pairs from the pool, all of one size in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pool import NOTHING, WORDLESS
from .sources import run_folder


@dataclass
class Batch:
    """B scenes; scenes 2i and 2i+1 share the object of slot 0."""

    latents: Tensor  # (B, 16, G, G), G cells a side
    masks: Tensor  # (B, SLOTS, G, G), 0..1
    concepts: np.ndarray  # (B, SLOTS)
    wordless: Tensor  # (B,) bool

    @property
    def foreground(self) -> Tensor:
        """(B, 1, G, G): any object."""
        used = torch.from_numpy(self.concepts != NOTHING)[..., None, None].to(self.masks.device)
        return (self.masks * used).sum(1, keepdim=True).clamp(max=1)

    def targets(self, words: list[int]) -> Tensor:
        """(B, W, G, G): the mask of each word in each scene."""
        place = {c: k for k, c in enumerate(words)}
        result = self.masks.new_zeros(len(self.latents), len(words), *self.masks.shape[2:])
        scenes, slots = (torch.from_numpy(v) for v in np.nonzero(self.concepts >= 0))
        columns = torch.tensor([place[c] for c in self.concepts[self.concepts >= 0].tolist()], dtype=torch.long)
        scenes, slots, columns = (v.to(self.masks.device) for v in (scenes, slots, columns))
        return result.index_put((scenes, columns), self.masks[scenes, slots], accumulate=True)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; a GPU is not waited for."""
        pinned = device.type == "cuda"
        latents, masks, wordless = (
            (v.pin_memory() if pinned else v).to(device, non_blocking=pinned)
            for v in (self.latents, self.masks, self.wordless)
        )
        return Batch(latents, masks, self.concepts, wordless)


Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # latents, masks, concepts


class Pool:
    """Parts on disk, drawn without replacement in random order; a fixed share of the pairs is wordless.

    Parts that appear while training goes on are taken up whenever a queue runs empty. Of ``world`` processes each draws
    pairs of its own.
    """

    def __init__(self, rng: np.random.Generator, wordless_share: float, rank: int = 0, world: int = 1) -> None:
        self.rng, self.share, self.folder = rng, wordless_share, run_folder() / "pool"
        self.rank, self.world = rank, world
        self.parts: dict[str, Part] = {}
        self.queue: dict[tuple[int, str], list[tuple[str, int]]] = {}

    def draw(self, pairs: int, size: int) -> Batch:
        """``pairs`` pairs of scenes of ``size`` pixels a side, the wordless ones first."""
        new = int(pairs * self.share) + (self.rng.random() < pairs * self.share % 1)
        return self._batch([self._next(size, "new" if k < new else "plain") for k in range(pairs)])

    def alone(self, pairs: int, size: int) -> Batch:
        """``pairs`` pairs of plain pictures of one or two objects."""
        return self._batch([self._next(size, "alone") for _ in range(pairs)])

    def _batch(self, rows: list[tuple[Part, int]]) -> Batch:
        latents, masks, concepts = (
            np.concatenate([np.asarray(part[k][2 * i : 2 * i + 2]) for part, i in rows]) for k in range(3)
        )
        return Batch(
            torch.from_numpy(latents).float(),
            torch.from_numpy(masks).float() / 255,
            concepts,
            torch.from_numpy(concepts[:, 0] <= WORDLESS),
        )

    def has(self, size: int, kinds: Sequence[str] = ("plain", "new")) -> bool:
        """Whether scenes of this size are there, by default with words and without."""
        return all(self.queue.get((size, kind)) or any(self.folder.glob(f"z.{kind}{size}-*.npy")) for kind in kinds)

    def _next(self, size: int, kind: str) -> tuple[Part, int]:
        queue = self.queue.setdefault((size, kind), [])
        if not queue:
            names = sorted(p.name.split(".")[1] for p in self.folder.glob(f"z.{kind}{size}-*.npy"))
            if not names:
                raise FileNotFoundError(f"no pool part {kind}{size}-* in {self.folder}; run the pool stage")
            rows = [(name, i) for name in names for i in range(self.rank, len(self._part(name)[2]) // 2, self.world)]
            queue += [rows[k] for k in self.rng.permutation(len(rows))]
        name, i = queue.pop()
        return self._part(name), i

    def _part(self, name: str) -> Part:
        if name not in self.parts:
            z, m, c = (np.load(self.folder / f"{k}.{name}.npy", mmap_mode="r") for k in "zmc")
            self.parts[name] = z, m, c
        return self.parts[name]
