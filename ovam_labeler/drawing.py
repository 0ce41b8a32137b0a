"""Draws masks over pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

_TINT = {"truth": (38, 190, 120), "mask": (255, 64, 129)}


def overlay(image: np.ndarray, mask: np.ndarray | None, truth: np.ndarray | None, tint: str = "mask") -> Image.Image:
    """The scene with ``mask`` tinted and the outline of ``truth`` in white; either may be None.

    Args:
        image: uint8 (H, W, 3); mask, truth: bool (H, W).
        tint: ``"mask"`` (pink) or ``"truth"`` (green).
    """
    picture = image.astype(np.float32)
    if mask is not None:
        grey = picture.mean(axis=2, keepdims=True)
        # What is outside the mask fades, so that the mask stands out on any background.
        picture = np.where(mask[..., None], 0.45 * picture + 0.55 * np.array(_TINT[tint], np.float32), 0.6 * grey + 70)
    if truth is not None:
        picture[_outline(truth, 2)] = (20, 20, 20)
        picture[_outline(truth, 1)] = (255, 255, 255)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _outline(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels just outside the mask, ``width`` wide (4-neighbourhood)."""
    grown = mask.copy()
    for _ in range(width):
        padded = np.pad(grown, 1)
        grown = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown & ~mask
