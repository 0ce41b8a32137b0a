"""What a verification reads: composed scenes with exact truth, made from the shipped drawings, and files of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovam_labeler.errors import OvamError
from ovam_labeler.image_source import load_image

#: Seed of the shipped scenes: the same in every run, so that figures from different machines are of the same pictures.
SEED = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """One image to read.

    Attributes:
        name: what the report calls it; a user's file is only numbered, since its name is the user's own.
        label, truth: a class in it and its exact mask, bool (H, W); None for a user's file.
    """

    name: str
    pixels: np.ndarray
    label: str
    truth: np.ndarray | None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()


def shipped_scenes(count: int) -> tuple[list[Picture], list[str]]:
    """Scenes and twenty class names to ask for.

    Raises:
        OvamError: OpenCV, which composes them, is missing; says what to type.
    """
    try:
        from backends.diffusion.tiny.training.composer import compose
    except ImportError as error:
        raise OvamError(
            "The shipped scenes are composed with OpenCV; pip install 'ovam-labeler[demo]', or verify with --image."
        ) from error
    from ovam_labeler.demo.scenes import Plan, make_scenes
    from ovam_labeler.demo.sprites import load_pack

    pack = load_pack("test")
    plan = Plan(novel=0, known=max(1, count), corrections=1, tests=0)
    scenes = make_scenes(pack, SEED, compose, plan).scenes[:count]
    names = [c.name for c in sorted(pack, key=lambda c: (not c.has_word, c.name))]
    return [Picture(f"scene {k}", s.image, s.concept, s.truth) for k, s in enumerate(scenes, 1)], names[:20]


def own_images(paths: Sequence[Path], labels: Sequence[str]) -> list[Picture]:
    """Raises BadImageError naming the file."""
    return [
        Picture(f"own image {k}", load_image(path).pixels, labels[(k - 1) % len(labels)], None)
        for k, path in enumerate(paths, 1)
    ]
