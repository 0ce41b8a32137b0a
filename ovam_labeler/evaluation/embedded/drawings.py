"""Held-out drawings by concept, and scenes of them: seen styles from the shipped pack, unseen styles drawn on the spot.

Two emoji sets are in no training scene. Their licence (share-alike) keeps them out of the distribution, so they are
fetched with ``npm`` into the training's run folder; without it the unseen styles are left out and said to be.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.scenes import Concept, Sprite
from ovam_labeler.demo.sprites import load_pack

#: Side of a scene in pixels, and the longest side of an unseen style's drawing.
SIDE, DRAWN = 320, 192
#: Scenes of a concept: annotated, tested in styles of the training, tested in unseen styles.
ANNOTATED, TESTED, UNSEEN = 5, 6, 4

Kind = Literal["annotated", "seen", "unseen"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A composed scene. ``masks``: concept -> bool (SIDE, SIDE) of what shows of it; the first is the object asked for."""

    name: str
    concept: Concept
    kind: Kind
    family: str
    image: np.ndarray
    masks: dict[str, np.ndarray]

    @property
    def truth(self) -> np.ndarray:
        return self.masks[self.concept.name]


def unseen_styles(names: Sequence[str]) -> dict[str, list[Sprite]]:
    """Drawings of concepts in the styles that training never saw; empty where they cannot be fetched."""
    from backends.diffusion.tiny.training.concepts import load_concepts
    from backends.diffusion.tiny.training.sources import STYLES

    wanted = [style for style in STYLES if style.test_only]
    try:
        from backends.diffusion.tiny.training.data import draw, fetch_packages

        fetch_packages(wanted)
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"unseen styles are left out: {error}", flush=True)
        return {}
    found: dict[str, list[Sprite]] = {}
    for concept in load_concepts(wanted):
        if concept.label in names:
            for style, source in concept.sources.items():
                pixels = draw(source, DRAWN, square=False)
                if pixels is not None:
                    family = next(s.family for s in wanted if s.name == style)
                    found.setdefault(concept.label, []).append(Sprite(concept.label, style, family, pixels))
    return found


def make_pictures(split: Literal["test", "val"], has_word: bool, every: int, drawn: int) -> list[Picture]:
    """Scenes of every ``every``-th concept of a split, with or without a trained word; the same ones on every machine.

    ``drawn``: most annotated scenes of a concept.
    """
    pack = load_pack(split)
    chosen = [c for c in pack if c.has_word == has_word and len(c.families()) >= 2][::every]
    unseen = unseen_styles([c.name for c in pack])
    pictures = []
    for concept in chosen:
        for kind, index, sprite in _plan(concept, unseen.get(concept.name, []), drawn):
            rng = np.random.default_rng([crc32(f"{split} {concept.name} {kind} {index}".encode())])
            pictures.append(_compose(concept, kind, index, sprite, pack, unseen, rng))
    return pictures


def _plan(concept: Concept, unseen: Sequence[Sprite], drawn: int) -> list[tuple[Kind, int, Sprite]]:
    """Annotated scenes go through the design families in turn; test scenes through all drawings."""
    rng = np.random.default_rng([crc32(concept.name.encode())])
    shuffled = [concept.sprites[i] for i in rng.permutation(len(concept.sprites))]
    first: dict[str, Sprite] = {}
    for sprite in shuffled:
        first.setdefault(sprite.family, sprite)
    in_turn = list(first.values())
    plan: list[tuple[Kind, int, Sprite]] = [("annotated", i, s) for i, s in enumerate((in_turn * drawn)[:drawn])]
    # one drawing of each family before a second of any, so that every token meets families it was not learned on
    spread = [*in_turn[::-1], *(s for s in shuffled if s not in in_turn)]
    plan += [("seen", i, s) for i, s in enumerate((spread * TESTED)[:TESTED])]
    plan += [("unseen", i, s) for i, s in enumerate((list(unseen) * UNSEEN)[:UNSEEN])]
    return plan


def _compose(
    concept: Concept,
    kind: Kind,
    index: int,
    sprite: Sprite,
    pack: Sequence[Concept],
    unseen: dict[str, list[Sprite]],
    rng: np.random.Generator,
) -> Picture:
    """The sprite among one or two other held-out concepts, half of them in an unseen style if it is."""
    others = [c for c in pack if c.name != concept.name]
    sprites = [sprite]
    for i in rng.choice(len(others), 1 + int(rng.integers(0, 2)), replace=False):
        drawings: Sequence[Sprite] = others[i].sprites
        if kind == "unseen" and rng.random() < 0.5:
            drawings = unseen.get(others[i].name) or drawings
        sprites.append(drawings[int(rng.integers(len(drawings)))])
    image, soft = compose([s.pixels for s in sprites], rng, (SIDE, SIDE), min_visible=0.55)
    masks = {s.concept: m > 0.5 for s, m in zip(sprites, soft, strict=True)}
    return Picture(f"{concept.name} {kind} {index}", concept, kind, sprite.family, image, masks)
