"""Stage ``pool``: compose the training scenes once, as latents, mask fractions and concept numbers.

A part is named ``plainSIZE-K`` (objects with words) or ``newSIZE-K``: objects that are recoloured, mirrored or turned the
same way in both scenes of a pair. Those are *new* concepts without a word; without them novel objects are learned
away as background; or ``aloneSIZE-K``: one object, seldom two, on plain ground, to learn to paint from. Rows 2i and 2i+1 share the concept of slot 0. A disguised concept c is kept as ``disguised(c)``: its
own word is neither right nor wrong for it, every other known word is wrong.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from .autoencoder import LATENT_CHANNELS, encode, load_autoencoder
from .composer import hue_rotation
from .library import Library, Scene, composed
from .sources import run_folder

FACTOR = 8  # pixels of a latent cell's side
GRID = 16  # cells of a side at the native 128 pixels
SLOTS = 4  # most objects in a scene
NOTHING, WORDLESS = -1, -2  # below WORDLESS: a disguised concept
PARTS = (
    "alone128-0=4000",
    "plain160-0=9000",
    "new160-0=3000",
    "plain160-1=9000",
    "new160-1=3000",
    "plain224-0=4000",
    "new224-0=1200",
)


@dataclass(frozen=True)
class Disguise:
    """What turns a known drawing into a concept of its own."""

    channels: tuple[int, ...]
    hue: float
    flip: bool
    quarter_turns: int
    invert: bool

    @staticmethod
    def draw(rng: np.random.Generator) -> Disguise:
        return Disguise(
            tuple(rng.permutation(3).tolist()),
            float(rng.uniform(0.6, 2 * np.pi - 0.6)) if rng.random() < 0.7 else 0.0,
            bool(rng.random() < 0.5),
            int(rng.choice([0, 1, 3], p=[0.6, 0.2, 0.2])),
            bool(rng.random() < 0.15),
        )

    def __call__(self, sprite: np.ndarray) -> np.ndarray:
        colour = np.asarray(sprite)[..., list(self.channels)].astype(np.float32)
        if self.hue:
            colour = colour @ hue_rotation(self.hue).T
        if self.invert:
            colour = 255 - colour
        result = np.concatenate([np.clip(colour, 0, 255).astype(np.uint8), sprite[..., 3:]], 2)
        return np.rot90(result[::-1] if self.flip else result, self.quarter_turns)


def disguised(concept: int) -> int:
    """How a concept in disguise is kept; its own inverse."""
    return WORDLESS - 1 - concept


def wordless_pair(library: Library, rng: np.random.Generator, concept: int, size: int = 128) -> list[Scene]:
    """Two scenes with the same disguised concept; distractors are often disguised too, now and then as the same
    concept in another disguise (a hard one)."""
    disguise, scenes = Disguise.draw(rng), []
    for _, row in library.two_of(concept, rng):
        sprites, origins = [disguise(library.drawing(row, rng))], [concept]
        for _ in range(int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))):
            other = library.distractor(concept, rng)
            if rng.random() < 0.08:
                drawings = library.train[concept]
                sprites.append(Disguise.draw(rng)(library.drawing(drawings[rng.integers(len(drawings))][1], rng)))
                origins.append(concept)
                continue
            drawings = library.train[other]
            sprite = library.drawing(drawings[rng.integers(len(drawings))][1], rng)
            sprites.append(Disguise.draw(rng)(sprite) if rng.random() < 0.6 else sprite)
            origins.append(other)
        scenes.append(Scene(*composed(sprites, rng, size), [disguised(c) for c in origins]))
    return scenes


def alone_pair(library: Library, rng: np.random.Generator, concept: int, size: int = 128) -> list[Scene]:
    """Two pictures to learn to paint from: a known object in one drawing that stands for it, upright in the middle of a flat
    ground; every sixth time two of them, the first on the left.

    As little as possible varies that a prompt does not say: a small model then learns the objects, not their circumstances.
    """
    scenes = []
    for _ in range(2):
        ids = [concept if concept in library.plainest else int(rng.choice(library.known))]
        if rng.random() < 1 / 6:
            other = int(rng.choice(library.known))
            if other != ids[0] and not library.conflicts[other] & {*ids}:
                ids.append(other)
        side = int(size * (0.78 if len(ids) == 1 else 0.44))
        image = np.empty((size, size, 3), np.float32)
        image[:] = 255 * (1 - rng.uniform(0.05, 0.55) * rng.uniform(0, 1, 3))
        masks = np.zeros((len(ids), size, size), np.float32)
        for k, c in enumerate(ids):
            sprite = cv2.resize(
                np.asarray(library.pixels[library.plainest[c]]), (side, side), interpolation=cv2.INTER_AREA
            )
            centre = size // 2 if len(ids) == 1 else size * (1 + 2 * k) // 4
            top, left = (size - side) // 2, centre - side // 2
            masks[k, top : top + side, left : left + side] = sprite[..., 3] / 255
            place = image[top : top + side, left : left + side]
            place[:] = place + (sprite[..., :3] - place) * (sprite[..., 3:] / 255)
        scenes.append(Scene(image.round().astype(np.uint8), masks, ids))
    return scenes


def fractions(masks: np.ndarray) -> np.ndarray:
    """Visible share of each latent cell, uint8 0..255, (n, H / 8, W / 8)."""
    n, height, width = masks.shape
    cells = masks.reshape(n, height // FACTOR, FACTOR, width // FACTOR, FACTOR).mean((2, 4))
    return np.round(cells * 255).astype(np.uint8)


#: Kind of part: how a pair is made, and the first number of its random generator.
MAKERS: dict[str, tuple[Callable[[Library, np.random.Generator, int, int], list[Scene]], int]] = {
    "plain": (Library.pair, 1000),
    "new": (wordless_pair, 5000),
    "alone": (alone_pair, 9000),
}


def build(part: str, pairs: int, library: Library) -> None:
    """Compose and encode one part; written under its final name only when complete."""
    torch.set_num_threads(1)
    match = re.fullmatch(r"(plain|new|alone)(\d+)-(\d+)", part)
    if match is None or int(match[2]) % (2 * FACTOR):
        raise ValueError(
            f"pool part {part!r}: plainSIZE-K, newSIZE-K or aloneSIZE-K is needed, SIZE a multiple of {2 * FACTOR}"
        )
    make, first = MAKERS[match[1]]
    size, number = int(match[2]), int(match[3])
    grid = size // FACTOR
    folder = run_folder() / "pool"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng([first, size, number])
    model, total = load_autoencoder(), 2 * pairs
    latents = np.lib.format.open_memmap(
        folder / f"z.{part}.tmp", "w+", np.float16, (total, LATENT_CHANNELS, grid, grid)
    )
    masks = np.zeros((total, SLOTS, grid, grid), np.uint8)
    concepts = np.full((total, SLOTS), NOTHING, np.int16)
    queue: list[int] = []
    images: list[np.ndarray] = []
    begin, at = time.time(), 0
    for i in range(pairs):
        if not queue:
            further = [c for c in library.base if c not in set(library.known) and rng.random() < 0.5]
            queue = rng.permutation(library.known + further).tolist()
        concept = queue.pop()
        scenes = make(library, rng, concept, size)
        for k, scene in enumerate(scenes):
            count = len(scene.concepts)
            concepts[2 * i + k, :count] = scene.concepts
            masks[2 * i + k, :count] = fractions(scene.masks)
            images.append(scene.image)
        if len(images) >= 32 or i == pairs - 1:
            latents[at : at + len(images)] = encode(model, np.stack(images))
            if at == 0:
                rows = [np.concatenate(images[r::2][:14], 1) for r in (0, 1)]
                cv2.imwrite(str(folder / f"{part}.png"), np.concatenate(rows, 0)[..., ::-1])
            at, images = at + len(images), []
    latents.flush()
    np.save(folder / f"m.{part}.npy", masks)
    np.save(folder / f"c.{part}.npy", concepts)
    (folder / f"z.{part}.tmp").rename(folder / f"z.{part}.npy")
    print(f"{part}: {total} scenes in {time.time() - begin:.0f}s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", help="NAME=PAIRS, e.g. plain160-0=5200 new224-1=4000", default=[])
    library = Library()
    for item in parser.parse_args().part or PARTS:
        name, pairs = item.split("=")
        build(name, int(pairs), library)


if __name__ == "__main__":
    main()
