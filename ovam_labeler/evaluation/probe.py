"""Looks into the running application: relative maps of any query on a scene, as the product makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends import discovery
from backends.attention.binarize import relative_map
from backends.contract import Attributor, ClassQuery
from ovam_labeler.demo.scenes import Scene
from ovam_labeler.domain import LoadedImage
from ovam_labeler.evaluation.metrics import min_max
from ovam_labeler.image_source import load_image
from ovam_labeler.propose import find_refiner
from ovam_labeler.services import Application


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that may stand for a concept, with its query."""

    word: str
    query: ClassQuery


class Probe:
    """Maps of queries on saved scenes, through the application's own inference, cache and method.

    Args:
        app: the application under test.
        folder: where :meth:`ovam_labeler.demo.scenes.SceneSet.save` wrote the pictures.
    """

    def __init__(self, app: Application, folder: Path) -> None:
        self.app, self.folder = app, folder
        self.attributor: Attributor = app.backend().attributor
        self.method = discovery.methods()[app.settings.method].get()
        self.needs = self.method.needs(self.attributor)
        self.refiner = find_refiner(app.settings.refiner)
        self._images: dict[str, LoadedImage] = {}
        self._nouns: tuple[list[str], np.ndarray] | None = None

    def image(self, scene: Scene) -> LoadedImage:
        """The scene's picture as the product loads it from its file."""
        if scene.name not in self._images:
            self._images[scene.name] = load_image(self.folder / f"{scene.name}.png")
        return self._images[scene.name]

    def relative(self, scene: Scene, queries: Sequence[ClassQuery]) -> list[np.ndarray]:
        """One map a query, float32 (H, W) of the scene's size, min-max normalised; presence is not asked.

        The product's refiner is applied to the map itself, not to one bent about a threshold: thresholds are tried after.
        """
        capture = self.app.inference.submit(self.image(scene), self.needs).result()
        heat = self.method.maps(self.attributor, capture, queries)
        size = (scene.image.shape[0], scene.image.shape[1])
        softs = [relative_map(m, size) for m in heat]
        if self.refiner is None:
            return softs
        pixels = self.image(scene).pixels
        return [min_max(np.asarray(self.refiner.refine(pixels, soft), np.float32).clip(0, 1)) for soft in softs]

    def candidates(self, name: str, nearest: int = 5) -> list[Candidate]:
        """What can be asked for a concept without learning: its own name, "thing", and the nearest known words.

        Nearness is the cosine between noun embeddings, each less the mean of all known words' (a part that every noun
        shares would drown the rest).
        """
        words = [name, "thing"]
        known, directions = self._dictionary()
        if known:
            noun = self.attributor.noun(name) - self._mean
            order = np.argsort(-(directions @ (noun / (np.linalg.norm(noun) + 1e-12))), kind="stable")
            words += [known[i] for i in order if known[i] not in (name.lower(), "thing")][:nearest]
        return [Candidate(word, self.attributor.words(word)) for word in words]

    def _dictionary(self) -> tuple[list[str], np.ndarray]:
        """Known words and their centred unit noun embeddings (n, E); empty for a model that counts any word as known."""
        if self._nouns is None:
            known = sorted(getattr(self.attributor, "known_words", None) or ())
            if not known:
                self._nouns = ([], np.zeros((0, self.attributor.embedding_size), np.float32))
            else:
                rows = np.stack([self.attributor.noun(word) for word in known])
                self._mean = rows.mean(0)
                rows = rows - self._mean
                self._nouns = (known, rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12))
        return self._nouns
