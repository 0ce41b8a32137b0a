"""Is the class in this image at all?  The decision that comes before Eq. 9.

Eq. 9 is relative to the maximum, so it paints every label of a config.  Here, a few numbers describe each class's map, alone and
against the other labels asked for, and a logistic model turns them into a probability.  A backend measures the model's weights
(:func:`fit_presence`) and ships them in its ``Calibration``; without that, the defaults below apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from backends.contract import BackendError

#: Names of the features, all finite; see :func:`presence_features`.
FEATURES = (
    *("bias", "peak", "top", "contrast", "sharpness", "area", "share", "won", "lead", "single"),
    *("logit_top", "logit_lead"),
)

#: Uncalibrated: a prior for Stable Diffusion backends, set by reasoning and measured on nothing.  A word's map competes with the
#: start token, so its level says little; only its shape and the other labels are used, and in doubt the class is present.
UNCALIBRATED_WORDS: Mapping[str, float] = {"bias": -1.5, "sharpness": 3.0, "lead": 3.0, "won": 1.0}
#: Uncalibrated, as above: a learned token's map is a probability by its loss (Eq. 7), so its level is used.
UNCALIBRATED_TOKENS: Mapping[str, float] = {"bias": -3.0, "top": 6.0, "lead": 2.0}

_EPS = 1e-6
_TOP_SHARE = 0.02


def presence_features(maps: torch.Tensor, logits: torch.Tensor | None = None) -> list[dict[str, float]]:
    """Describe each class's heat map, alone and among the labels asked for together.

    Args:
        maps: (classes, h, w) of Eq. 5 with means, in 0..1, one map for each label asked for, before any min-max.
        logits: (classes, h', w') of the same classes before the softmax (:class:`backends.contract.LogitSource`), where the
            backend has them.  A softmax against the background alone saturates, so two labels that both pass it cannot be
            told apart in ``maps``; their logits still can.

    Returns:
        For each class:

        - ``bias``: 1.
        - ``peak``: maximum.
        - ``top``: mean of the highest 2 % of the pixels (at least one).
        - ``contrast``: ``top`` minus the median.
        - ``sharpness``: log of ``top`` over the mean; does not depend on the map's scale.
        - ``area``: share of the pixels above the middle between minimum and maximum.
        - ``share``: share of the pixels where this class has the highest map, minus 1 / classes (chance).
        - ``won``: the same within the pixels of ``area``.
        - ``lead``: (own - best other) / (own + best other) at the own peak, in -1..1.
        - ``single``: 1 for the only label asked for, else 0.  ``share``, ``won`` and ``lead`` are 0 then: with nothing to
          compare with they carry no evidence either way.
        - ``logit_top``: mean of the highest 2 % of the logits; 0 without ``logits``.
        - ``logit_lead``: mean, over those pixels, of the own logit minus the best other's; 0 without ``logits`` or others.

    Raises:
        BackendError: wrong shape, or NaN or infinite values.
    """
    if logits is not None and (logits.ndim != 3 or len(logits) != len(maps) or not logits[0].numel()):
        raise BackendError(f"Logits have shape {tuple(logits.shape)}; ({len(maps)} classes, h, w) is needed.")
    if maps.ndim != 3 or not maps.shape[1] * maps.shape[2]:
        raise BackendError(f"Heat maps have shape {tuple(maps.shape)}; (classes, h, w) is needed.")
    flat = _finite(maps)
    bare = None if logits is None else _finite(logits)
    classes, pixels = flat.shape
    ordered = np.sort(flat, axis=1)
    winners = flat.argmax(0) if classes > 1 else np.zeros(pixels, int)
    features = []
    for c in range(classes):
        own = flat[c]
        low, peak = ordered[c, 0], ordered[c, -1]
        top = float(ordered[c, -_count(pixels) :].mean())
        inside = own > (low + peak) / 2
        found = {
            "bias": 1.0,
            "peak": float(peak),
            "top": top,
            "contrast": top - float(np.median(own)),
            "sharpness": float(np.log((top + _EPS) / (own.mean() + _EPS))),
            "area": float(inside.mean()),
            "share": 0.0,
            "won": 0.0,
            "lead": 0.0,
            "single": float(classes == 1),
        }
        if classes > 1:
            mine = winners == c
            at = int(own.argmax())
            other = float(np.delete(flat[:, at], c).max())
            found["share"] = float(mine.mean()) - 1 / classes
            found["won"] = (float(mine[inside].mean()) if inside.any() else 0.0) - 1 / classes
            found["lead"] = (float(peak) - other) / (abs(float(peak)) + abs(other) + _EPS)
        features.append(found | _logit_features(bare, c))
    return features


def _finite(maps: torch.Tensor) -> np.ndarray:
    """(classes, pixels) float64."""
    flat = maps.detach().to("cpu", torch.float64).flatten(1).numpy()
    if not np.isfinite(flat).all():
        raise BackendError("The heat maps contain NaN or infinite values; read the image again.")
    return flat


def _logit_features(logits: np.ndarray | None, c: int) -> dict[str, float]:
    if logits is None:
        return {"logit_top": 0.0, "logit_lead": 0.0}
    highest = np.argpartition(logits[c], -_count(logits.shape[1]))[-_count(logits.shape[1]) :]
    own, others = logits[c, highest], np.delete(logits[:, highest], c, axis=0)
    lead = float((own - others.max(0)).mean()) if len(others) else 0.0
    return {"logit_top": float(own.mean()), "logit_lead": lead}


def _count(pixels: int) -> int:
    """Pixels that count as the highest."""
    return max(1, round(pixels * _TOP_SHARE))


def presence_probability(features: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Logistic model: probability 0..1 that the class is there.  A feature missing on either side counts as 0."""
    logit = sum(weight * features.get(name, 0.0) for name, weight in weights.items())
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))


def fit_presence(
    features: Sequence[Mapping[str, float]],
    labels: Sequence[bool],
    *,
    ridge: float = 1e-2,
    names: Sequence[str] = FEATURES,
) -> dict[str, float]:
    """Logistic regression with a ridge, by Newton's method.

    Args:
        features: of :func:`presence_features`, one for each (image, class).
        labels: whether the class is in the image.
        ridge: weight of the squared, standardised weights against the mean log-loss; the bias is free.
        names: features to use; a feature that does not vary gets weight 0.

    Returns:
        Weights by name for :func:`presence_probability`, on the features as they are.

    Raises:
        BackendError: lengths differ, or one of both answers does not occur.
    """
    truth = np.asarray(labels, np.float64)
    if len(features) != len(truth) or not 0 < truth.sum() < len(truth):
        raise BackendError(
            f"Presence needs as many labels as features and both answers among them; got {len(features)} features, "
            f"{len(truth)} labels, {int(truth.sum())} present."
        )
    used = [n for n in names if n != "bias"]
    raw = np.array([[f.get(n, 0.0) for n in used] for f in features], np.float64)
    mean, spread = raw.mean(0), raw.std(0)
    varies = spread > 1e-12
    scaled = np.where(varies, (raw - mean) / np.where(varies, spread, 1.0), 0.0)
    design = np.hstack([np.ones((len(truth), 1)), scaled])
    penalty = np.diag([1e-9] + [ridge] * len(used))
    weights = _newton(design, truth, penalty)
    slopes = np.where(varies, weights[1:] / np.where(varies, spread, 1.0), 0.0)
    result = {"bias": float(weights[0] - (slopes * mean).sum())}
    result.update({n: float(w) for n, w in zip(used, slopes, strict=True)})
    return result


def cut_at_recall(probabilities: Sequence[float], labels: Sequence[bool], recall: float = 0.8) -> float:
    """The highest cut at which at least ``recall`` of the classes that are there are judged present.

    Raises:
        BackendError: lengths differ, nothing is present, or recall outside 0..1.
    """
    found = np.asarray(probabilities, np.float64)[np.asarray(labels, bool)] if len(probabilities) == len(labels) else []
    if not len(found) or not 0 < recall <= 1:
        raise BackendError("A cut needs a label for each probability, at least one present class, and recall in 0..1.")
    ordered = np.sort(found)[::-1]
    return float(ordered[int(np.ceil(recall * len(ordered))) - 1])


def _newton(design: np.ndarray, truth: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Minimise mean log-loss + w' penalty w / 2; halves a step that does not help."""

    def loss(w: np.ndarray) -> float:
        logits = design @ w
        return float(np.mean(np.logaddexp(0, logits) - truth * logits) + 0.5 * w @ penalty @ w)

    weights = np.zeros(design.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -60, 60)))
        gradient = design.T @ (p - truth) / len(truth) + penalty @ weights
        hessian = (design.T * (p * (1 - p))) @ design / len(truth) + penalty + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        size, now = 1.0, loss(weights)
        while loss(weights - size * step) > now and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return weights
