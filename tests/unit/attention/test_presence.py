from __future__ import annotations

import numpy as np
import pytest
import torch

from backends.attention.presence import (
    FEATURES,
    UNCALIBRATED_TOKENS,
    UNCALIBRATED_WORDS,
    cut_at_recall,
    fit_presence,
    presence_features,
    presence_probability,
)
from backends.contract import BackendError


def scene(seed: int, present: list[bool]) -> torch.Tensor:
    """Maps of labels on one image: noise for the absent, noise and a blob somewhere for the present."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    maps = 0.15 + 0.1 * torch.rand(len(present), 16, 24, generator=generator)
    for c, there in enumerate(present):
        if there:
            row, column = torch.rand(2, generator=generator) * torch.tensor([16, 24])
            height = 0.15 + 0.6 * float(torch.rand(1, generator=generator))
            maps[c] += height * torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 20.0)
    return maps.clamp(0, 1)


def test_features_are_complete_and_finite() -> None:
    for maps in (scene(0, [True]), scene(1, [True] * 10), torch.zeros(3, 4, 4), torch.ones(1, 1, 1)):
        found = presence_features(maps)
        assert len(found) == len(maps)
        for features in found:
            assert tuple(features) == FEATURES
            assert all(np.isfinite(v) for v in features.values())


def test_what_the_features_say() -> None:
    maps = scene(3, [True, False, False])
    there, absent, _ = presence_features(maps)
    for name in ("peak", "top", "contrast", "sharpness", "lead", "won", "share"):
        assert there[name] > absent[name], name
    assert there["area"] < absent["area"]
    assert -1 <= absent["lead"] <= 1


def test_a_single_label_has_nothing_to_compare_with() -> None:
    (alone,) = presence_features(scene(3, [True]))
    assert (alone["share"], alone["won"], alone["lead"], alone["single"]) == (0, 0, 0, 1)
    together = presence_features(scene(3, [True, False]))[0]
    assert together["single"] == 0 and together["lead"] > 0


@pytest.mark.parametrize("weights", [UNCALIBRATED_WORDS, UNCALIBRATED_TOKENS])
def test_a_stronger_blob_is_never_less_present(weights) -> None:
    """Uncalibrated defaults: raising the object's part of a map raises the probability."""
    base, blob = scene(5, [False, False]), scene(5, [True, False]) - scene(5, [False, False])
    steps = [
        presence_probability(presence_features((base + s * blob).clamp(0, 1))[0], weights) for s in np.linspace(0, 1, 8)
    ]
    assert all(b >= a for a, b in zip(steps, steps[1:], strict=False))
    assert steps[-1] > steps[0] + 0.1


def test_scale_free_features_ignore_the_scale() -> None:
    maps = scene(7, [True, False])
    full, half = presence_features(maps)[0], presence_features(maps / 2)[0]
    for name in ("sharpness", "area", "share", "won", "lead"):
        assert full[name] == pytest.approx(half[name], abs=1e-3), name


def test_probability_is_logistic_and_ignores_what_is_missing() -> None:
    assert presence_probability({"bias": 1.0}, {"bias": 0.0}) == 0.5
    assert presence_probability({"bias": 1.0, "peak": 1.0}, {"bias": 1.0, "gone": 5.0}) == pytest.approx(0.7310586)
    assert presence_probability({"bias": 1.0, "peak": 1e9}, {"peak": 1.0}) == pytest.approx(1.0)
    assert presence_probability({"bias": 1.0, "peak": 1e9}, {"peak": -1.0}) < 1e-20


def test_fit_separates_scenes_it_has_not_seen() -> None:
    def collect(seeds: range) -> tuple[list[dict[str, float]], list[bool]]:
        features: list[dict[str, float]] = []
        labels: list[bool] = []
        for seed in seeds:
            present = [(seed * 7 + c * 3) % 5 < 2 for c in range(1 + seed % 10)]
            features += presence_features(scene(seed, present))
            labels += present
        return features, labels

    features, labels = collect(range(60))
    weights = fit_presence(features, labels)
    found = [presence_probability(f, weights) for f in features]
    cut = cut_at_recall(found, labels, 0.9)
    unseen, truth = collect(range(100, 140))
    judged = np.array([presence_probability(f, weights) >= cut for f in unseen])
    present = np.array(truth)
    assert judged[present].mean() > 0.75
    assert judged[~present].mean() < 0.1


def test_fit_is_the_optimum_and_a_ridge_shrinks() -> None:
    rng = np.random.default_rng(0)
    features = [{"bias": 1.0, "peak": float(v), "area": 3.0} for v in rng.normal(size=200)]
    labels = [bool(rng.random() < 1 / (1 + np.exp(-(2 * f["peak"] - 1)))) for f in features]
    loose = fit_presence(features, labels, ridge=1e-6)
    tight = fit_presence(features, labels, ridge=1.0)
    assert loose["peak"] == pytest.approx(2, abs=0.6) and loose["bias"] == pytest.approx(-1, abs=0.5)
    assert 0 < tight["peak"] < loose["peak"]
    assert loose["area"] == 0
    # At the optimum of a logistic regression with a free bias, the mean probability is the share of positives.
    mean = np.mean([presence_probability(f, tight) for f in features])
    assert mean == pytest.approx(np.mean(labels), abs=1e-4)


def test_perfectly_separable_data_does_not_blow_up() -> None:
    features = [{"bias": 1.0, "peak": float(v)} for v in (0.1, 0.2, 0.8, 0.9)]
    weights = fit_presence(features, [False, False, True, True])
    assert all(np.isfinite(w) for w in weights.values())
    assert presence_probability(features[0], weights) < 0.5 < presence_probability(features[3], weights)


def test_cut_keeps_the_recall() -> None:
    probabilities = [0.9, 0.8, 0.7, 0.6, 0.1, 0.95, 0.3]
    labels = [True, True, True, True, True, False, False]
    assert cut_at_recall(probabilities, labels, 0.8) == 0.6
    assert cut_at_recall(probabilities, labels, 1.0) == 0.1


def test_wrong_input_is_named() -> None:
    with pytest.raises(BackendError, match="both answers"):
        fit_presence([{"bias": 1.0}], [True])
    with pytest.raises(BackendError, match="classes, h, w"):
        presence_features(torch.zeros(4, 4))
    with pytest.raises(BackendError, match="NaN"):
        presence_features(torch.full((1, 2, 2), float("nan")))
    with pytest.raises(BackendError, match="at least one present"):
        cut_at_recall([0.1], [False])


def test_logits_tell_apart_what_a_saturated_softmax_cannot() -> None:
    """Two labels both pass the background by far; only one of them is what is there."""
    blob = scene(5, [True])[0]
    logits = torch.stack([20 * blob, 14 * blob])
    saturated = torch.sigmoid(logits.mul(3))
    own, other = presence_features(saturated, logits)
    assert own["logit_top"] > other["logit_top"] > 0
    assert own["logit_lead"] > 0 > other["logit_lead"]
    assert abs(own["top"] - other["top"]) < 0.01


def test_logits_of_a_single_label_lead_nothing() -> None:
    maps = scene(3, [True])
    (alone,) = presence_features(maps, 10 * maps)
    assert alone["logit_lead"] == 0 and alone["logit_top"] > 0


@pytest.mark.parametrize("logits", [torch.zeros(1, 4, 4), torch.zeros(2, 4), torch.full((2, 2, 2), float("nan"))])
def test_bad_logits_are_refused(logits: torch.Tensor) -> None:
    with pytest.raises(BackendError):
        presence_features(torch.zeros(2, 4, 4), logits)
