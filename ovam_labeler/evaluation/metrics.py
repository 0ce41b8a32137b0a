"""Figures of merit: IoU, IoU at every threshold at once, leave-one-out thresholds, paired bootstrap, AUC.

Soft maps are judged as Eq. 9 uses them: relative to their maximum after min-max, so that a threshold is a share 0..1 of
the map's own range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

#: Number of thresholds tried; threshold ``k`` is ``k / BINS``.
BINS = 40


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two bool (H, W) masks, 0..1; two empty masks agree wholly (1.0)."""
    union = np.count_nonzero(mask | truth)
    return float(np.count_nonzero(mask & truth) / union) if union else 1.0


def min_max(soft: np.ndarray) -> np.ndarray:
    """Stretch a map to 0..1 (float32, same shape); a constant map gives zeros, not rounding noise."""
    low, high = float(soft.min()), float(soft.max())
    if not high - low > 1e-12:
        return np.zeros_like(soft, dtype=np.float32)
    return ((soft - low) / (high - low)).astype(np.float32)


def iou_curve(soft: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU at each relative threshold ``k / BINS``, k = 0 .. BINS-1, from one histogram.

    Args:
        soft: (H, W) map at the truth's size, any range.
        truth: bool (H, W), not empty.

    Returns:
        (BINS,) float64 in 0..1: entry k is the IoU of ``min_max(soft) >= k / BINS`` with the truth.

    Raises:
        ValueError: shapes differ, or the truth is empty.
    """
    if soft.shape != truth.shape:
        raise ValueError(f"map {soft.shape} and truth {truth.shape} differ in size.")
    total = np.count_nonzero(truth)
    if not total:
        raise ValueError("the truth is empty: an IoU curve needs an object.")
    # The tiny term keeps values that sit exactly on a threshold (k / BINS in float32) on its upper side.
    level = np.minimum((min_max(soft) * BINS + 1e-5).astype(np.int64), BINS - 1)
    every = np.bincount(level.ravel(), minlength=BINS)[::-1].cumsum()[::-1]
    inside = np.bincount(level[truth], minlength=BINS)[::-1].cumsum()[::-1]
    return inside / np.maximum(every + total - inside, 1)


def best_threshold(curves: Sequence[np.ndarray]) -> int:
    """Index k of the threshold with the best mean IoU over curves (each (BINS,))."""
    return int(np.mean(curves, axis=0).argmax())


def leave_one_out(curves: Mapping[str, np.ndarray]) -> dict[str, int]:
    """For each concept, the threshold index that is best on all *other* concepts' mean curves.

    Args:
        curves: concept -> (BINS,) mean curve of that concept; at least two concepts.

    Raises:
        ValueError: fewer than two concepts, so there is nothing to pick a threshold on.
    """
    if len(curves) < 2:
        raise ValueError(f"leave-one-concept-out needs at least 2 concepts, got {len(curves)}.")
    return {name: best_threshold([c for other, c in curves.items() if other != name]) for name in curves}


def paired_bootstrap(
    differences: Sequence[float], *, draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences, resampling the pairs.

    Raises:
        ValueError: no differences.
    """
    values = np.asarray(differences, np.float64)
    if not values.size:
        raise ValueError("a bootstrap needs at least one difference.")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, values.size, (draws, values.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auc(present: Sequence[float], absent: Sequence[float]) -> float:
    """Probability that a present one scores above an absent one (ties count half); nan when either is empty."""
    if not len(present) or not len(absent):
        return float("nan")
    ranks = np.sort(np.asarray(absent, np.float64))
    values = np.asarray(present, np.float64)
    below = np.searchsorted(ranks, values, "left")
    equal = np.searchsorted(ranks, values, "right") - below
    return float((below + equal / 2).mean() / len(ranks))


def painted_at_recall(present: Sequence[float], absent: Sequence[float], recall: float = 0.8) -> float:
    """Share of the absent that score at least as high as the cut at which ``recall`` of the present pass.

    Args:
        present, absent: presence scores, any scale, higher = more likely there.
        recall: 0 < recall <= 1.

    Returns:
        0..1; nan when either list is empty.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}; allowed: above 0, at most 1.")
    if not len(present) or not len(absent):
        return float("nan")
    ordered = np.sort(np.asarray(present, np.float64))[::-1]
    cut = ordered[int(np.ceil(recall * len(ordered) - 1e-9)) - 1]
    return float((np.asarray(absent, np.float64) >= cut).mean())
