"""Paint an icon of one colour: its ink and the areas that it encloses, in colours of a drawing of the same thing."""

from __future__ import annotations

import cv2
import numpy as np

SOLID = 0.6  # an icon with more ink than this share of its shape is filled, one with less is a line drawing
THINNEST = 0.35  # share of the shape that must be left after an erosion, else it is open lines
RANDOM = 0.25  # how often the colours are another drawing's


def palette(drawing: np.ndarray, count: int = 4) -> np.ndarray:
    """The ``count`` main colours of an RGBA sprite, the most frequent first; float32 (count, 3)."""
    pixels = drawing[drawing[..., 3] > 128][:, :3].astype(np.float32)[::7]
    if len(pixels) < count:
        return np.full((count, 3), 128, np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 1.0)
    cv2.setRNGSeed(0)
    _, labels, centres = cv2.kmeans(pixels, count, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    return np.asarray(centres[np.argsort(-np.bincount(labels.ravel(), minlength=count))], np.float32)


def paint(icon: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """uint8 RGBA (H, W, 4) of the same size; none if the icon is open lines, which enclose no object."""
    ink = icon[..., 3].astype(np.float32) / 255
    lines = (ink > 0.4).astype(np.uint8)
    outside = np.pad(lines, 1)
    cv2.floodFill(outside, None, (0, 0), 2)
    shape = (outside[1:-1, 1:-1] != 2).astype(np.uint8)
    if cv2.erode(shape, np.ones((7, 7), np.uint8)).sum() < THINNEST * shape.sum():
        return None
    filled = lines.sum() > SOLID * shape.sum()
    dark = colours[np.argmin(colours.sum(1))] * rng.uniform(0.1, 0.7)
    colour = np.broadcast_to(colours[0] if filled else dark, (*ink.shape, 3)).astype(np.float32).copy()
    under = colour.copy()
    count, regions, stats, _ = cv2.connectedComponentsWithStats(shape & (1 - lines), connectivity=4)
    for place, region in enumerate(sorted(range(1, count), key=lambda r: -stats[r, cv2.CC_STAT_AREA])):
        if filled:
            chosen = colours[1 + int(rng.integers(len(colours) - 1))] if rng.random() < 0.8 else dark
        else:
            chosen = colours[0] if place == 0 or rng.random() < 0.4 else colours[int(rng.integers(len(colours)))]
        under[cv2.dilate((regions == region).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = chosen
    weight = ink[..., None]
    painted = colour * weight + under * (1 - weight)
    alpha = np.maximum(ink, shape.astype(np.float32))
    return np.concatenate([np.clip(painted, 0, 255), 255 * alpha[..., None]], 2).round().astype(np.uint8)
