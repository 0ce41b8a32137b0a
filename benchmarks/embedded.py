"""Part 2: what the presets and fits are worth on the embedded model: agreement of masks, and IoU on held-out pictures."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.attention.fit_loss import FitExample
from backends.attention.heatmaps import class_maps, heat_maps
from backends.attention.presets import PRESETS
from backends.attention.queries import LayerQueries, QueryBundle, kept
from backends.attention.token_optimization import initial_embedding, learn_token
from backends.contract import Backend, Needs, TokenRecipe, TokenSet
from backends.diffusion.tiny import SPEC
from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.scenes import Plan, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.metrics import iou, min_max

STEPS = 30
#: Prompts of the generated pictures; each label is read from its own picture.
LABELS = ("cat", "dog", "car", "tree", "banana", "guitar", "house", "apple", "bird", "boat", "chair", "fish")
#: Received pictures are read at 30 steps here, so that pooling has something to pool.
TIMESTEPS = tuple(int(t) for t in np.linspace(500, 10, STEPS))
PLAN = Plan(novel=4, known=2, corrections=1, tests=5)
#: Ridge of our fit, chosen on the validation concepts by ``python -m benchmarks.ridge``.
RIDGE = 1e-3


def measure(log: Any) -> dict[str, Any]:
    backend: Backend = SPEC.load("embedded", "cpu", None)
    found = {"cache_iou": cache_iou(backend), "heldout_iou": {}}
    log(f"masks of generated pictures against lossless: {found['cache_iou']}")
    found.update(heldout(backend, "test", RIDGE))
    log(f"held-out pictures: {found['heldout_pictures']}, IoU {found['heldout_iou']}")
    return found


def cache_iou(backend: Backend) -> dict[str, float]:
    """Mean IoU of word masks with the lossless ones, on generated pictures of 30 steps."""
    attributor: Any = backend.attributor
    reader: Any = backend.reader()
    needs = Needs(preset="lossless")
    agreement: dict[str, list[float]] = {name: [] for name in PRESETS}
    for seed, label in enumerate(LABELS):
        made = reader.generate(label, needs, seed=seed, steps=STEPS)
        bundle = QueryBundle.from_tensors(made.capture.tensors, made.capture.info.layout)
        plain = _computed(bundle)
        masks = {}
        for name, preset in PRESETS.items():
            opened = QueryBundle.from_tensors(*kept(plain, preset))
            with torch.no_grad():
                soft = class_maps(opened, attributor.projections, [attributor.words(label)])[0].numpy()
            masks[name] = min_max(soft) >= attributor.calibration.word_threshold
        for name, mask in masks.items():
            agreement[name].append(iou(mask, masks["lossless"]))
    return {name: fmean(values) for name, values in agreement.items()}


def _computed(bundle: QueryBundle) -> QueryBundle:
    return QueryBundle(
        tuple(LayerQueries(y.name, y.heads, y.height, y.width, y.scale, y.plain().contiguous()) for y in bundle.layers)
    )


def heldout(backend: Backend, split: Any, ridge: float) -> dict[str, Any]:
    """Mean IoU on pictures not learned from: the paper's 500 epochs, our fit on ``exact`` and on ``balanced`` queries."""
    attributor: Any = backend.attributor
    reader: Any = backend.reader()
    scenes = make_scenes(load_pack(split), 0, compose, PLAN)
    needs = Needs(preset="lossless", timesteps=TIMESTEPS)
    recipes = {
        "sgd500": ("exact", TokenRecipe()),
        "exact": ("exact", TokenRecipe("lbfgs", 60, 1.0, ridge=ridge)),
        "balanced": ("balanced", TokenRecipe("lbfgs", 60, 1.0, ridge=ridge)),
    }
    scores: dict[str, list[float]] = {name: [] for name in (*recipes, "linear")}
    cut = attributor.calibration.token_threshold
    for concept in scenes.concepts:

        def read(scene: Any) -> dict[str, QueryBundle]:
            """The picture's queries in each preset that is compared; the computed ones are let go."""
            capture = reader.capture(scene.image, needs)
            plain = _computed(QueryBundle.from_tensors(capture.tensors, capture.info.layout))
            return {name: plain.stored(PRESETS[name]) for name in ("exact", "balanced")}

        (lesson,) = scenes.of(concept.name, "correction")
        learned = read(lesson)
        tests = [(scene.truth, read(scene)) for scene in scenes.of(concept.name, "test")]
        start = initial_embedding(attributor.background(), attributor.noun("thing"))
        for name, (preset, recipe) in recipes.items():
            truth = lesson.truth.astype(np.float32)
            example = FitExample(learned[preset], truth, np.ones_like(truth))
            fit = learn_token([example], attributor.projections, start, recipe, loss_at="map")
            query = [(TokenSet(torch.from_numpy(fit.embedding), (1,)),)]
            for wanted, images in tests:
                with torch.no_grad():
                    soft = class_maps(images[preset], attributor.projections, query)[0].numpy()
                scores[name].append(iou(_mask(soft, wanted.shape, cut), wanted))
                if name == "exact":
                    delta = torch.from_numpy(fit.embedding[1:] - fit.embedding[:1])
                    flat = heat_maps(images[preset], attributor.projections, delta, activation="linear")
                    scores["linear"].append(iou(_mask(flat[0].sigmoid().numpy(), wanted.shape, cut), wanted))
    return {
        "heldout_iou": {name: fmean(scores[name]) for name in recipes},
        "linear_iou": fmean(scores["linear"]),
        "heldout_pictures": len(scores["exact"]),
    }


def _mask(soft: np.ndarray, size: tuple[int, int], cut: float) -> np.ndarray:
    return relative_map(torch.from_numpy(soft), size) >= cut
