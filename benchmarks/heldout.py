"""What fits are worth on pictures that were not learned from: 500 epochs of the paper's optimiser beside ours.

One corrected picture of a concept, tested on others, on the embedded model.  Ridge, balance and each fit's relative threshold
are chosen on validation concepts by ``python -m benchmarks.ridge``; the test concepts have no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.attention.fit_loss import FitExample
from backends.attention.heatmaps import class_maps, heat_maps
from backends.attention.presets import PRESETS
from backends.attention.queries import QueryBundle
from backends.attention.token_optimization import initial_embedding, learn_token
from backends.contract import Backend, Needs, TokenRecipe, TokenSet
from backends.diffusion.tiny.training.composer import compose
from benchmarks.forms import computed
from ovam_labeler.demo.scenes import Plan, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.metrics import BINS, iou_curve

#: Received pictures are read at 30 steps here, so that pooling has something to pool.
TIMESTEPS = tuple(int(t) for t in np.linspace(500, 10, 30))
TEST = Plan(novel=16, known=8, corrections=1, tests=4)


@dataclass(frozen=True, slots=True)
class Fit:
    """A recipe on the queries of a preset; ``linear``: its token's maps are read without the softmax."""

    preset: str
    recipe: TokenRecipe
    linear: bool = False


def ours(ridge: float, balance: bool) -> TokenRecipe:
    return TokenRecipe("lbfgs", 60, 1.0, ridge=ridge, balance=balance)


OURS = ours(2e-3, balance=True)
SGD = Fit("exact", TokenRecipe())
FITS = {
    "sgd500": SGD,
    "exact": Fit("exact", OURS),
    "balanced": Fit("balanced", OURS),
    "linear": Fit("exact", OURS, linear=True),
}
#: Relative threshold of each fit's masks.
CUTS = {"sgd500": 0.35, "exact": 0.575, "balanced": 0.55, "linear": 0.5}


def compare(backend: Backend) -> dict[str, Any]:
    """Figures of the test concepts."""
    found = curves(backend, "test", TEST, FITS)
    at = {name: float(np.mean(found[name], axis=0)[round(CUTS[name] * BINS)]) for name in FITS}
    return {
        "linear_iou": at.pop("linear"),
        "heldout_iou": at,
        "heldout_pictures": len(found["exact"]),
        "heldout_concepts": TEST.novel + TEST.known,
    }


def curves(
    backend: Backend, split: Literal["test", "val"], plan: Plan, fits: Mapping[str, Fit]
) -> dict[str, list[np.ndarray]]:
    """By fit and picture (BINS,): IoU with the truth at each relative threshold."""
    attributor: Any = backend.attributor
    reader: Any = backend.reader()
    scenes = make_scenes(load_pack(split), 0, compose, plan)
    needs = Needs(preset="lossless", timesteps=TIMESTEPS)
    found: dict[str, list[np.ndarray]] = {name: [] for name in fits}
    presets = {fit.preset for fit in fits.values()}
    start = initial_embedding(attributor.background(), attributor.noun("thing"))

    def read(image: np.ndarray) -> dict[str, QueryBundle]:
        """The picture's queries in each preset that is compared; the computed ones are let go."""
        capture = reader.capture(image, needs)
        plain = computed(QueryBundle.from_tensors(capture.tensors, capture.info.layout))
        return {name: plain.stored(PRESETS[name]) for name in presets}

    for concept in scenes.concepts:
        (lesson,) = scenes.of(concept.name, "correction")
        learned = read(lesson.image)
        tests = [(scene.truth, read(scene.image)) for scene in scenes.of(concept.name, "test")]
        truth = lesson.truth.astype(np.float32)
        tokens: dict[tuple[str, TokenRecipe], np.ndarray] = {}
        for name, fit in fits.items():
            key = (fit.preset, fit.recipe)
            if key not in tokens:
                example = FitExample(learned[fit.preset], truth, np.ones_like(truth))
                tokens[key] = learn_token([example], attributor.projections, start, fit.recipe, loss_at="map").embedding
            token = torch.from_numpy(tokens[key])
            for wanted, images in tests:
                heat = _heat(images[fit.preset], attributor.projections, token, fit.linear)
                found[name].append(iou_curve(relative_map(heat, wanted.shape), wanted))
    return found


@torch.no_grad()
def _heat(bundle: QueryBundle, projections: Any, token: torch.Tensor, linear: bool) -> torch.Tensor:
    """(h, w) in 0..1 of the class."""
    if linear:
        return heat_maps(bundle, projections, token[1:] - token[:1], activation="linear")[0].sigmoid()
    return class_maps(bundle, projections, [(TokenSet(token, (1,)),)])[0]
