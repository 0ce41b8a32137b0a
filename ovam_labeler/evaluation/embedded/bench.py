"""The model on pictures, by the product's own reader, attributor and refiner; curves of IoU over thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from backends.attention.binarize import recentre, relative_map
from backends.attention.heatmaps import resize_maps
from backends.attention.presence import presence_features
from backends.contract import Backend, Capture, ClassQuery, Needs, TokenExample, TokenRecipe
from ovam_labeler.evaluation.embedded.drawings import Picture
from ovam_labeler.evaluation.metrics import BINS, iou, iou_curve
from ovam_labeler.propose import find_refiner, logits_of
from ovam_labeler.truth import build_truths

#: The product's default refiner.
REFINER = "guided-filter"

Features = tuple[dict[str, float], bool]


@dataclass(slots=True)
class Tally:
    """What was measured, by row name, kind of picture (``seen``, ``unseen``) and concept.

    ``curves``: (BINS,) IoU per picture, ``values``: numbers per picture, ``presence``: features with the truth.
    """

    curves: dict[str, dict[str, dict[str, list[np.ndarray]]]] = field(default_factory=dict)
    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    presence: dict[str, dict[str, list[Features]]] = field(default_factory=dict)

    def curve(self, row: str, picture: Picture, values: np.ndarray) -> None:
        self.curves.setdefault(row, {}).setdefault(picture.kind, {}).setdefault(picture.concept.name, []).append(values)

    def value(self, row: str, picture: Picture, number: float) -> None:
        self.values.setdefault(row, {}).setdefault(picture.kind, {}).setdefault(picture.concept.name, []).append(number)

    def judged(self, row: str, picture: Picture, features: Features) -> None:
        self.presence.setdefault(row, {}).setdefault(picture.kind, []).append(features)

    def mean_curve(self, row: str, kind: str) -> np.ndarray:
        """(BINS,), every concept counting the same."""
        return np.asarray(np.mean([np.mean(v, axis=0) for v in self.curves[row][kind].values()], axis=0))

    def by_concept(self, row: str, kind: str, at: int) -> dict[str, float]:
        return {c: float(np.mean(v, axis=0)[at]) for c, v in self.curves[row].get(kind, {}).items()}


class Bench:
    """A loaded model with captures of pictures, kept while a concept is measured."""

    def __init__(self, backend: Backend) -> None:
        self.attributor, self.reader = backend.attributor, backend.reader()
        self.refiner = find_refiner(REFINER)
        self._captures: dict[str, Capture] = {}

    def capture(self, picture: Picture) -> Capture:
        if picture.name not in self._captures:
            self._captures[picture.name] = self.reader.capture(picture.image, Needs())
        return self._captures[picture.name]

    def forget(self) -> None:
        """Drop all captures."""
        self._captures.clear()

    @torch.no_grad()
    def maps(self, picture: Picture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """(classes, h, w) in 0..1."""
        return self.attributor.maps(self.capture(picture), queries)

    @torch.no_grad()
    def logits(self, picture: Picture, queries: Sequence[ClassQuery]) -> torch.Tensor | None:
        """(classes, h, w) before the softmax, where the backend has them."""
        return logits_of(self.attributor, self.capture(picture), queries)

    def features(self, picture: Picture, queries: Sequence[ClassQuery]) -> list[dict[str, float]]:
        """What the presence decision reads, one for each class."""
        return presence_features(self.maps(picture, queries), self.logits(picture, queries))

    def learn(self, pictures: Sequence[Picture], recipe: TokenRecipe) -> ClassQuery:
        """The token of the pictures' concept, as the product learns it."""
        name, examples = pictures[0].concept.name, []
        for picture in pictures:
            (truth,) = build_truths(picture.truth.shape, [(name, picture.truth)], [name])
            target, weight = truth.mask.astype(np.float32), (~truth.ignore).astype(np.float32)
            examples.append(TokenExample(self.capture(picture), target, weight))
        return self.attributor.token(self.attributor.learn(examples, recipe, label=name).embedding)

    def refined(self, picture: Picture, heat: torch.Tensor, threshold: float) -> float:
        """IoU of the mask that the product paints with the truth."""
        return iou(self.painted(picture.image, heat, threshold), picture.truth)

    def painted(self, image: np.ndarray, heat: torch.Tensor, threshold: float) -> np.ndarray:
        """Bool (H, W), what the product paints: relative map, its shipped threshold, its refiner."""
        soft = recentre(relative_map(heat, image.shape[:2]), threshold)
        if self.refiner is not None:
            soft = self.refiner.refine(image, soft)
        return np.asarray(soft >= 0.5)


def relative_curve(picture: Picture, heat: torch.Tensor) -> np.ndarray:
    """(BINS,) IoU with the truth at thresholds relative to the map's range (Eq. 9)."""
    return iou_curve(relative_map(heat, picture.truth.shape), picture.truth)


def absolute_curve(picture: Picture, heat: torch.Tensor) -> np.ndarray:
    """(BINS,) IoU with the truth of the pixels at or above k / BINS."""
    values = resize_maps(heat[None].float(), picture.truth.shape)[0].clamp(0, 1).numpy()
    level = np.minimum((values * BINS + 1e-5).astype(np.int64), BINS - 1)
    every = np.bincount(level.ravel(), minlength=BINS)[::-1].cumsum()[::-1]
    inside = np.bincount(level[picture.truth], minlength=BINS)[::-1].cumsum()[::-1]
    return np.asarray(inside / np.maximum(every + picture.truth.sum() - inside, 1))


def own_share(picture: Picture, maps: torch.Tensor) -> float:
    """Share of the object's pixels at which the first map is the highest."""
    up = resize_maps(maps.float(), picture.truth.shape)
    return float((up.argmax(0).numpy() == 0)[picture.truth].mean())
