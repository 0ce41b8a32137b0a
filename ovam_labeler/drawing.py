"""Draws masks over pictures."""

from __future__ import annotations

from collections.abc import Sequence

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


def class_overlay(
    image: np.ndarray, masks: Sequence[np.ndarray], colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """Each mask in its colour, with a double outline, black and white, that is seen on any ground.

    The picture loses its own colours under a mask and fades a little elsewhere, so that a colour of the palette is never
    taken for the object's.

    Args:
        image: uint8 (H, W, 3); masks: bool (H, W) each; colours: one for each mask.

    Returns:
        uint8 (H, W, 3).
    """
    picture = image.astype(np.float32)
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    found = 0.75 * picture + 0.25 * grey[..., None]
    for mask, colour in zip(masks, colours, strict=True):
        # Light and shade stay visible: the colour is scaled about its own brightness.
        shade = 0.6 + 0.55 * grey[mask] / 255
        found[mask] = 0.25 * grey[mask][:, None] + 0.75 * np.array(colour, np.float32) * shade[:, None]
    width = max(1, round(min(image.shape[:2]) / 300))
    for mask in masks:
        found[_outline(mask, 2 * width)] = (0, 0, 0)
        found[_outline(mask, width)] = (255, 255, 255)
    return np.clip(found, 0, 255).round().astype(np.uint8)


def _outline(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels just outside the mask, ``width`` wide (4-neighbourhood)."""
    grown = mask.copy()
    for _ in range(width):
        padded = np.pad(grown, 1)
        grown = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown & ~mask
