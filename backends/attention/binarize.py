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
    if overlap not in ("exclusive", "independent"):
        raise BackendError(f"overlap is {overlap!r}; 'exclusive' or 'independent' is allowed.")
    painter = MaskPainter(overlap)
    for index, (m, tau) in enumerate(zip(soft, thresholds, strict=True)):
        painter.add(m, tau, 1.0 if confidence is None else confidence[index])
    return [painter.mask(index) for index in range(len(soft))]


class MaskPainter:
    """Masks of classes whose soft maps come one at a time, so that no two of them need to be held at once.

    Args:
        overlap: as :func:`masks_from_soft` has it.
    """

    def __init__(self, overlap: Overlap) -> None:
        self._overlap = overlap
        self._painted: list[np.ndarray] = []
        self._confidences: list[float] = []
        self._margins: list[float] = []
        self._best: np.ndarray | None = None
        self._winner: np.ndarray | None = None

    def add(self, soft: np.ndarray, threshold: float, confidence: float = 1.0) -> None:
        """The next class: soft (H, W) float in 0..1, its tau 0..1, confidence > 0."""
        _check_threshold(threshold)
        inside = (soft >= threshold) & (soft > 0)
        claim = (soft - threshold) / max(1.0 - threshold, 1e-6)
        self._confidences.append(confidence)
        if self._overlap == "independent":
            self._painted.append(inside)
            self._margins.append(float(claim[inside].mean()) if inside.any() else 0.0)
            return
        if self._best is None or self._winner is None:
            self._best = np.full(soft.shape, -1.0, np.float32)
            self._winner = np.full(soft.shape, -1, np.int16)
        claim *= confidence
        inside &= claim > self._best
        self._best[inside] = claim[inside]
        self._winner[inside] = len(self._confidences) - 1

    def mask(self, index: int) -> np.ndarray:
        """Bool (H, W) of the class that came as number ``index``."""
        mask: np.ndarray = self._painted[index] if self._winner is None else self._winner == index
        return mask

    def margins(self) -> list[float]:
        """For each class, how decided its map is inside its mask: mean height above the threshold, 0..1; 0 without one."""
        if self._best is None or self._winner is None:
            return [min(max(margin, 0.0), 1.0) for margin in self._margins]
        found = []
        for index, confidence in enumerate(self._confidences):
            claims = self._best[self._winner == index]
            found.append(float((claims.mean() / confidence).clip(0, 1)) if claims.size else 0.0)
        return found


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
