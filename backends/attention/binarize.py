"""From soft maps to masks, Eq. 9 of the paper (section 3.4), at the image's own size.

Maps are min-max normalised, so the threshold is relative to the map's maximum.  That draws something for *every* class: decide
first whether the class is there at all (:mod:`backends.attention.presence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from backends.attention.heatmaps import resize_maps
from backends.contract import BackendError

Overlap = Literal["exclusive", "independent"]

#: A map whose spread is below this share of its largest value is rounding noise: no evidence, an empty mask.
_FLAT = 1e-6


def relative_map(heat: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """One heat map at image size, min-max normalised.

    Args:
        heat: (h, w), of any scale; already multiplied by self-attention where that is wanted
            (:func:`backends.attention.self_attention.weigh`).
        size: (height, width) of the image in pixels.

    Returns:
        (height, width) float32 in 0..1; all zero for a constant map.

    Raises:
        BackendError: NaN or infinite values.
    """
    heat = heat.detach().float()
    if not bool(torch.isfinite(heat).all()):
        raise BackendError(
            "The heat map contains NaN or infinite values; learn the token again or read the image again."
        )
    low, high = heat.min(), heat.max()
    if float(high - low) <= _FLAT * float(heat.abs().max()):
        return np.zeros(size, np.float32)
    # Normalised again after the resize: bilinear sampling may miss the exact extremes of the small grid.
    soft = resize_maps(((heat - low) / (high - low))[None], size)[0]
    low, high = soft.min(), soft.max()
    if float(high - low) <= _FLAT:
        return np.ones(size, np.float32)
    return ((soft - low) / (high - low)).clamp(0, 1).cpu().numpy()


def recentre(soft: np.ndarray, threshold: float) -> np.ndarray:
    """Bend a relative map so that its threshold lies at 0.5: 0, tau, 1 -> 0, 0.5, 1, linear between.

    A refiner that reads its input as a probability (a dense CRF) needs this; threshold its output at 0.5.
    """
    _check_threshold(threshold)
    below = soft * (0.5 / threshold) if threshold > 0 else np.full_like(soft, 0.5)
    above = 0.5 + (soft - threshold) * (0.5 / (1 - threshold)) if threshold < 1 else np.full_like(soft, 0.5)
    return np.where(soft < threshold, below, above).astype(np.float32)


def masks_from_soft(
    soft: Sequence[np.ndarray],
    thresholds: Sequence[float],
    *,
    overlap: Overlap = "exclusive",
    confidence: Sequence[float] | None = None,
) -> list[np.ndarray]:
    """Threshold soft maps of the classes judged present.

    Args:
        soft: (H, W) float in 0..1 for each class, all of one size.
        thresholds: tau 0..1 for each class; a pixel belongs where soft >= tau and soft > 0.
        overlap: ``"independent"``: classes may overlap.  ``"exclusive"``: a pixel goes to the class that exceeds its
            threshold most, as a share of what is left above it, times the class's confidence; the first class wins a tie.
        confidence: > 0 for each class, e.g. its presence probability; only used by ``"exclusive"``.

    Returns:
        bool (H, W) for each class.

    Raises:
        BackendError: lengths or sizes that differ, a threshold outside 0..1, an unknown policy.
    """
    if len(thresholds) != len(soft) or (confidence is not None and len(confidence) != len(soft)):
        raise BackendError(f"{len(soft)} maps need as many thresholds and confidences.")
    if any(m.shape != soft[0].shape for m in soft):
        raise BackendError(f"All maps must have one size; got {', '.join(str(m.shape) for m in soft)}.")
    for threshold in thresholds:
        _check_threshold(threshold)
    masks = [(m >= tau) & (m > 0) for m, tau in zip(soft, thresholds, strict=True)]
    if overlap == "independent" or len(soft) < 2:
        return masks
    if overlap != "exclusive":
        raise BackendError(f"overlap is {overlap!r}; 'exclusive' or 'independent' is allowed.")
    best = np.full(soft[0].shape, -1.0, np.float32)
    winner = np.full(soft[0].shape, -1, np.int16)
    for index, (m, tau) in enumerate(zip(soft, thresholds, strict=True)):
        room = max(1.0 - tau, 1e-6)
        claim = (m - tau) / room * (1.0 if confidence is None else confidence[index])
        better = masks[index] & (claim > best)
        best[better] = claim[better]
        winner[better] = index
    return [winner == index for index in range(len(soft))]


def binarize(
    maps: torch.Tensor,
    size: tuple[int, int],
    thresholds: Sequence[float],
    *,
    overlap: Overlap = "exclusive",
    confidence: Sequence[float] | None = None,
) -> list[np.ndarray]:
    """Eq. 9 for (classes, h, w) heat maps of the classes judged present: bool (height, width) for each."""
    soft = [relative_map(heat, size) for heat in maps]
    return masks_from_soft(soft, thresholds, overlap=overlap, confidence=confidence) if soft else []


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise BackendError(f"threshold is {threshold}; 0..1 is allowed.")
