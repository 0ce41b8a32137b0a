"""Pick concepts, sprites and scenes out of the held-out ones, by seed alone.

Nothing here was seen in training: a concept without a word is new to the model altogether, a known word's sprites are
of design families that training never saw.  The same seed gives the same scenes on every machine: each scene has a
random generator of its own, so that neither the number of concepts nor their order in the pack shifts the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

#: ``compose(sprites, rng, size) -> (uint8 image (H, W, 3), float masks (n, H, W) of what is visible)``.
Compose = Callable[..., tuple[np.ndarray, np.ndarray]]

#: Picture sizes (height, width) and how often each comes.
SIZES: tuple[tuple[tuple[int, int], float], ...] = (((320, 320), 0.7), ((240, 320), 0.15), ((320, 240), 0.15))
#: Share of a scene's other objects that are concepts of this very run, so that several offered labels are there.
FROM_RUN = 0.45
#: Smallest share of a picture its object of interest may show.
SMALLEST = 0.015


@dataclass(frozen=True, slots=True)
class Sprite:
    """One drawing.  ``pixels`` is uint8 RGBA; styles of one ``family`` show the same design."""

    concept: str
    style: str
    family: str
    pixels: np.ndarray


@dataclass(frozen=True, slots=True)
class Concept:
    """A class of the pack.  ``has_word``: its word was in the model's training."""

    name: str
    has_word: bool
    sprites: tuple[Sprite, ...]

    def families(self) -> list[str]:
        return sorted({s.family for s in self.sprites})


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is composed.

    Attributes:
        novel, known: concepts without and with a word in the model's training.
        corrections: scenes a concept that are corrected; the first alone gives ``after``.
        tests: uncorrected scenes a concept; every second one shows another design family than the corrected scene.
    """

    novel: int = 12
    known: int = 6
    corrections: int = 3
    tests: int = 10


@dataclass(frozen=True, slots=True)
class Scene:
    """A composed picture with exact truth.

    Attributes:
        name: file stem, unique in the run.
        concept: the class of interest.
        role: ``"correction"`` or ``"test"``; ``index`` counts within it.
        family: design family of the object of interest.
        same_style: whether that is the family of the concept's first corrected scene.
        image: uint8 (H, W, 3).
        masks: concept -> bool (H, W), visible pixels of every object in the picture, exact.
    """

    name: str
    concept: str
    role: str
    index: int
    family: str
    same_style: bool
    image: np.ndarray
    masks: Mapping[str, np.ndarray]

    @property
    def truth(self) -> np.ndarray:
        """Bool (H, W): the object of interest."""
        return self.masks[self.concept]

    @property
    def foreground(self) -> np.ndarray:
        """Bool (H, W): the union of all objects."""
        return np.any(list(self.masks.values()), axis=0)


@dataclass(frozen=True, slots=True)
class SceneSet:
    """All scenes of one seed."""

    seed: int
    concepts: tuple[Concept, ...]
    scenes: tuple[Scene, ...]

    def of(self, concept: str, role: str) -> list[Scene]:
        return [s for s in self.scenes if s.concept == concept and s.role == role]

    def offered(self, scene: Scene, count: int = 10) -> list[str]:
        """``count`` labels offered on a scene: those of the run that are there, filled up with ones that are not."""
        names = [c.name for c in self.concepts]
        there = [n for n in names if n in scene.masks]
        absent = [n for n in names if n not in scene.masks]
        rng = _generator(self.seed, "offered", scene.name)
        fill = min(len(absent), max(0, count - len(there)))
        chosen = {*there, *(absent[i] for i in rng.permutation(len(absent))[:fill])}
        return [n for n in names if n in chosen]

    def save(self, folder: Path) -> None:
        """Write pictures, masks (PNG, 0/255) and ``scenes.json``."""
        (folder / "masks").mkdir(parents=True, exist_ok=True)
        entries = []
        for scene in self.scenes:
            Image.fromarray(scene.image).save(folder / f"{scene.name}.png", compress_level=1)
            files = {}
            for i, (concept, mask) in enumerate(scene.masks.items()):
                files[concept] = f"masks/{scene.name}.{i}.png"
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / files[concept])
            entries.append(
                {
                    "name": scene.name,
                    "image": f"{scene.name}.png",
                    "concept": scene.concept,
                    "role": scene.role,
                    "index": scene.index,
                    "family": scene.family,
                    "same_style": scene.same_style,
                    "masks": files,
                }
            )
        concepts = [{"name": c.name, "has_word": c.has_word} for c in self.concepts]
        text = json.dumps({"seed": self.seed, "concepts": concepts, "scenes": entries}, indent=1)
        (folder / "scenes.json").write_text(text, encoding="utf-8")


def make_scenes(pack: Sequence[Concept], seed: int, compose: Compose, plan: Plan | None = None) -> SceneSet:
    """Compose the scenes of a seed.

    Args:
        pack: the held-out concepts; order does not matter.
        compose: the composer the model was trained with.

    Raises:
        ValueError: the pack holds fewer usable concepts than the plan asks for.
    """
    plan = plan or Plan()
    usable = sorted((c for c in pack if len(c.families()) >= 2), key=lambda c: c.name)
    rng = _generator(seed, "concepts")
    chosen: list[Concept] = []
    for wanted, has_word in ((plan.novel, False), (plan.known, True)):
        pool = [c for c in usable if c.has_word == has_word]
        if len(pool) < wanted:
            kind = "with" if has_word else "without"
            raise ValueError(f"the sprite pack has {len(pool)} concepts {kind} a word, {wanted} are asked for.")
        chosen += [pool[i] for i in sorted(rng.permutation(len(pool))[:wanted])]
    scenes: list[Scene] = []
    for number, concept in enumerate(chosen):
        scenes += _scenes_of(concept, number, chosen, usable, seed, compose, plan)
    return SceneSet(seed, tuple(chosen), tuple(scenes))


def _scenes_of(
    concept: Concept,
    number: int,
    run: Sequence[Concept],
    pack: Sequence[Concept],
    seed: int,
    compose: Compose,
    plan: Plan,
) -> list[Scene]:
    """All scenes of one concept."""
    rng = _generator(seed, "families", concept.name)
    families = [concept.families()[i] for i in rng.permutation(len(concept.families()))]
    # Corrections go through the families first, as a person would meet them; the first one fixes "same style".
    order = [("correction", i, families[i % len(families)]) for i in range(plan.corrections)]
    others = families[1:]
    for i in range(plan.tests):
        family = families[0] if i % 2 == 0 else others[(i // 2) % len(others)]
        order.append(("test", i, family))
    scenes = []
    for role, index, family in order:
        draw = _generator(seed, concept.name, role, str(index))
        mine = [s for s in concept.sprites if s.family == family]
        sprites = [mine[draw.integers(len(mine))], *_others(concept, run, pack, draw)]
        image, masks = _composed(sprites, draw, compose)
        scenes.append(
            Scene(
                name=f"{number:02d}-{_slug(concept.name)}-{role}-{index:02d}",
                concept=concept.name,
                role=role,
                index=index,
                family=family,
                same_style=family == families[0],
                image=image,
                masks={s.concept: m for s, m in zip(sprites, masks, strict=True)},
            )
        )
    return scenes


def _others(
    concept: Concept, run: Sequence[Concept], pack: Sequence[Concept], rng: np.random.Generator
) -> list[Sprite]:
    """One to three other objects; at most two of them are concepts of the run, so that 1 to 3 labels are there."""
    count = 1 + int(rng.choice(3, p=[0.4, 0.35, 0.25]))
    names = {c.name for c in run}
    strangers = [c for c in pack if c.name not in names]
    taken, from_run = {concept.name}, 0
    sprites: list[Sprite] = []
    while len(sprites) < count:
        inside = (from_run < 2 and rng.random() < FROM_RUN) or not strangers
        pool = [c for c in (run if inside else strangers) if c.name not in taken]
        if not pool:
            break
        other = pool[rng.integers(len(pool))]
        from_run += inside
        taken.add(other.name)
        sprites.append(other.sprites[rng.integers(len(other.sprites))])
    return sprites


def _composed(
    sprites: Sequence[Sprite], rng: np.random.Generator, compose: Compose, attempts: int = 20
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Compose until every object shows; masks are bool.  Raises ValueError when no layout does."""
    size = [s for s, _ in SIZES][int(rng.choice(len(SIZES), p=[p for _, p in SIZES]))]
    for _ in range(attempts):
        image, soft = compose([s.pixels for s in sprites], rng, size)
        masks = [m > 0.5 for m in soft]
        share = [float(m.mean()) for m in masks]
        if share[0] >= SMALLEST and min(share) >= SMALLEST / 3:
            return image, masks
    raise ValueError(f"no layout of {', '.join(s.concept for s in sprites)} shows every object.")


def _generator(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for a seed and a name; stable across machines and versions (no ``hash``)."""
    return np.random.default_rng([seed, *(crc32(n.encode("utf-8")) for n in names)])


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
