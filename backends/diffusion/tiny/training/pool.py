"""Stage ``pool``: compose the training scenes once, as latents, mask fractions and concept numbers.

A part is named ``plainK`` (objects with words) or ``newK``: objects that are recoloured, mirrored or turned the
same way in both scenes of a pair. Those are *new* concepts without a word; without them novel objects are learned
away as background. Rows 2i and 2i+1 share the concept of slot 0.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from .autoencoder import LATENT_CHANNELS, encode, load_autoencoder
from .composer import compose, hue_rotation
from .library import Library, Scene
from .sources import run_folder

GRID = 16  # latents and mask fractions are GRID x GRID
SLOTS = 4  # most objects in a scene
NOTHING, WORDLESS = -1, -2


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


def wordless_pair(library: Library, rng: np.random.Generator, concept: int) -> list[Scene]:
    """Two scenes with the same disguised concept; distractors are often disguised too, now and then as the same
    concept in another disguise (a hard one)."""
    disguise, scenes = Disguise.draw(rng), []
    for _, row in library.two_of(concept, rng):
        sprites = [disguise(library.pixels[row])]
        for _ in range(int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))):
            other = library.base[rng.integers(len(library.base))]
            if rng.random() < 0.08:
                drawings = library.train[concept]
                sprites.append(Disguise.draw(rng)(library.pixels[drawings[rng.integers(len(drawings))][1]]))
                continue
            drawings = library.train[other]
            sprite = library.pixels[drawings[rng.integers(len(drawings))][1]]
            sprites.append(Disguise.draw(rng)(sprite) if rng.random() < 0.6 else sprite)
        image, masks = compose(sprites, rng)
        scenes.append(Scene(image, masks, [WORDLESS] * len(sprites)))
    return scenes


def fractions(masks: np.ndarray) -> np.ndarray:
    """Visible share of each grid cell, uint8 0..255, (n, GRID, GRID)."""
    n, height, width = masks.shape
    cells = masks.reshape(n, GRID, height // GRID, GRID, width // GRID).mean((2, 4))
    return np.round(cells * 255).astype(np.uint8)


def build(part: str, pairs: int) -> None:
    """Compose and encode one part; written under its final name only when complete."""
    torch.set_num_threads(1)
    kind, number = part.rstrip("0123456789"), int(part.lstrip("abcdefghijklmnopqrstuvwxyz"))
    wordless = {"plain": False, "new": True}[kind]
    library, folder = Library(), run_folder() / "pool"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng((5000 if wordless else 1000) + number)
    model, total = load_autoencoder(), 2 * pairs
    latents = np.lib.format.open_memmap(
        folder / f"z.{part}.tmp", "w+", np.float16, (total, LATENT_CHANNELS, GRID, GRID)
    )
    masks = np.zeros((total, SLOTS, GRID, GRID), np.uint8)
    concepts = np.full((total, SLOTS), NOTHING, np.int16)
    queue: list[int] = []
    images: list[np.ndarray] = []
    begin, at = time.time(), 0
    for i in range(pairs):
        if not queue:
            queue = rng.permutation(library.base).tolist()
        concept = queue.pop()
        scenes = wordless_pair(library, rng, concept) if wordless else library.pair(rng, concept)
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
    parser.add_argument("part", nargs="*", help="NAME=PAIRS, e.g. plain0=5200 new0=4000", default=[])
    for item in parser.parse_args().part or ["plain0=13000", "plain1=13000", "new0=4000", "new1=4000"]:
        name, pairs = item.split("=")
        build(name, int(pairs))


if __name__ == "__main__":
    main()
