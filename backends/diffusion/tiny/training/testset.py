"""Stage ``testset``: composed scenes with exact masks, of concepts and drawings that training never saw.

Per concept: annotated scenes (A), test scenes in other drawings of the styles that training knows (T), and test
scenes in styles that no training scene has (U). Written as ``test.npz``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from .autoencoder import encode, load_autoencoder
from .composer import compose
from .library import Library
from .pool import GRID
from .sources import run_folder

GROUPS = ("novel_test", "novel_validation", "known_test", "known_validation")
ANNOTATED, TESTED, UNSEEN = 6, 14, 8


@dataclass
class Row:
    """What a scene shows: the concept asked about (first object) and its drawing, and the distractors' concepts."""

    concept: int
    group: int
    kind: str
    sprite: int
    style: int
    distractors: tuple[int, int]


def drawings(library: Library, concept: int, group: str) -> list[tuple[int, int]]:
    """Drawings that training never saw, in styles that it did see."""
    return library.train[concept] if group.startswith("novel") else library.held_out[concept]


def plan(library: Library, concept: int, group: str, rng: np.random.Generator) -> list[tuple[str, int, int]]:
    """(kind, style, sprite) of a concept's scenes; annotated ones go through the design families in turn."""
    seen, unseen = drawings(library, concept, group), library.unseen[concept]
    shuffled = [seen[i] for i in rng.permutation(len(seen))]
    first: dict[str, tuple[int, int]] = {}
    for style, row in shuffled:
        first.setdefault(library.family[style], (style, row))
    in_turn = [*first.values(), *(d for d in shuffled if d not in first.values())]
    if group.startswith("known"):  # two families: as many annotations of each
        in_turn = list(first.values())
    scenes = [("A", *d) for d in (in_turn * 6)[:ANNOTATED]]
    scenes += [("T", *d) for d in ([seen[i] for i in rng.permutation(len(seen))] * 14)[:TESTED]]
    scenes += [("U", *d) for d in ([unseen[i] for i in rng.permutation(len(unseen))] * 8)[:UNSEEN]]
    return scenes


def main() -> None:
    torch.set_num_threads(1)
    library, rng = Library(), np.random.default_rng(4242)
    rows: list[Row] = []
    images, masks, covers, shares = [], [], [], []
    for number, group in enumerate(GROUPS):
        concepts = library.ids(group)
        for concept in concepts:
            for kind, style, sprite in plan(library, concept, group, rng):
                sprites, others = [sprite], list[int]()
                while len(others) < 1 + int(rng.integers(0, 2)) and len(others) < 2:
                    source = library.known if group.startswith("known") or rng.random() < 0.7 else concepts
                    other = int(source[rng.integers(len(source))])
                    if other == concept or other in others:
                        continue
                    pool = library.unseen[other] if kind == "U" and rng.random() < 0.5 else []
                    pool = pool or [*library.held_out[other], *library.train[other]]
                    sprites.append(pool[rng.integers(len(pool))][1])
                    others.append(other)
                image, visible = compose([library.pixels[s] for s in sprites], rng, min_visible=0.55)
                images.append(image)
                masks.append(visible[0] > 0.5)
                covers.append(visible.sum(0) > 0.5)
                shares.append(visible[0].reshape(GRID, 8, GRID, 8).mean((1, 3)))
                rows.append(
                    Row(concept, number, kind, sprite, style, (others[0], others[1] if len(others) > 1 else -1))
                )
    model = load_autoencoder()
    latents = np.concatenate(
        [encode(model, np.stack(images[i : i + 64]), fast=False) for i in range(0, len(images), 64)]
    )
    table: dict[str, Any] = {key: np.array([asdict(r)[key] for r in rows]) for key in asdict(rows[0])}
    np.savez(
        run_folder() / "test.npz",
        image=np.stack(images),
        mask=np.stack(masks),
        cover=np.stack(covers),
        share=np.stack(shares).astype(np.float32),
        latent=latents,
        **table,
    )
    print(len(rows), "scenes")


if __name__ == "__main__":
    main()
