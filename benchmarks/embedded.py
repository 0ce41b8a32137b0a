"""Part 2: what the presets and fits are worth on the embedded model: agreement of masks, and IoU on held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np
import torch

from backends.attention.heatmaps import class_maps
from backends.attention.presets import PRESETS
from backends.attention.queries import QueryBundle
from backends.attention.spread import Affinity
from backends.contract import Backend, Needs
from backends.diffusion.tiny import SPEC
from benchmarks import heldout
from benchmarks.forms import Form, computed, preset_form
from ovam_labeler.evaluation.metrics import iou, min_max

STEPS = 30
#: Prompts of the generated pictures; each label is read from its own picture.
LABELS = ("cat", "dog", "car", "tree", "banana", "guitar", "house", "apple", "bird", "boat", "chair", "fish")


def measure(log: Any) -> dict[str, Any]:
    backend: Backend = SPEC.load("embedded", "cpu", None)
    agreement, errors = against_lossless(backend)
    found: dict[str, Any] = {"cache_iou": agreement, "cache_error": errors}
    log(f"masks of generated pictures against lossless: {agreement}")
    found.update(heldout.compare(backend))
    log(
        f"{found['heldout_pictures']} held-out pictures of {found['heldout_concepts']} concepts: {found['heldout_iou']}"
    )
    return found


def against_lossless(
    backend: Backend, forms: Mapping[str, Form] | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """Words on generated pictures of 30 steps: mean IoU of masks, largest error of a map over its range.

    Args:
        forms: by name, how queries are kept and opened again; all presets unless given.
    """
    attributor: Any = backend.attributor
    reader: Any = backend.reader()
    needs = Needs(preset="lossless")
    forms = forms or {name: preset_form(preset) for name, preset in PRESETS.items()}
    agreement: dict[str, list[float]] = {name: [] for name in forms}
    errors: dict[str, list[float]] = {name: [] for name in forms}
    cut = attributor.calibration.word_threshold
    for seed, label in enumerate(LABELS):
        made = reader.generate(label, needs, seed=seed, steps=STEPS)
        plain = computed(QueryBundle.from_tensors(made.capture.tensors, made.capture.info.layout))
        affinity = Affinity.from_tensors(made.capture.tensors, made.capture.info.layout)

        def soft(bundle: QueryBundle, label: str = label, affinity: Affinity = affinity) -> np.ndarray:
            with torch.no_grad():
                return affinity.spread(class_maps(bundle, attributor.projections, [attributor.words(label)]))[0].numpy()

        exact = soft(plain)
        for name, form in forms.items():
            found = soft(form(plain))
            agreement[name].append(iou(min_max(found) >= cut, min_max(exact) >= cut))
            errors[name].append(float(np.abs(found - exact).max() / np.ptp(exact)))
    return {n: fmean(values) for n, values in agreement.items()}, {n: max(values) for n, values in errors.items()}
