"""The same drawing as another hand would have made it: shape, line, colour, light and surface changed at random.

Training has nine styles. A model that is to read a tenth must not depend on what those nine share; nothing here imitates
any set in particular.
"""

from __future__ import annotations

import cv2
import numpy as np

from .composer import hue_rotation

#: How often each change is made to a drawing that is changed at all.
WARP, FLATTEN, OUTLINE, COLOUR, LIGHT, SURFACE = 0.6, 0.35, 0.35, 0.6, 0.35, 0.25
ROOM = 1.12  # of a warped drawing's side, in sides of the drawing


def restyle(sprite: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 RGBA (H, W, 4) of the same shape, with at least one change."""
    pixels = np.asarray(sprite).astype(np.float32)
    changes = (
        (WARP, _warp),
        (FLATTEN, _flatten),
        (LIGHT, _light),
        (COLOUR, _recolour),
        (SURFACE, _surface),
        (OUTLINE, _outline),
    )
    chosen = [change for share, change in changes if rng.random() < share] or [_recolour]
    for change in chosen:
        pixels = change(pixels, rng)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise of about unit size, (H, W)."""
    grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def _warp(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other proportions: a smooth displacement of up to a tenth of the side, shear and stretch."""
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    # a little smaller, so that what moves outwards is not cut off
    x, y = ROOM * (columns - width / 2) / width, ROOM * (rows - height / 2) / height
    shear, stretch = rng.uniform(-0.18, 0.18), rng.uniform(0.85, 1.0)
    if rng.random() < 0.5:
        x = x / stretch
    else:
        y = y / stretch
    x, y = x + shear * y, y + rng.uniform(-0.1, 0.1) * x
    size = rng.uniform(0.01, 0.04)
    x, y = (v + size * _smooth_noise(rng, (height, width), int(rng.integers(3, 6))) for v in (x, y))
    alpha = pixels[..., 3:] / 255
    layer = np.concatenate([pixels[..., :3] * alpha, pixels[..., 3:]], 2)
    layer = cv2.remap(
        layer,
        (x * width + width / 2).astype(np.float32),
        (y * height + height / 2).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    alpha = np.maximum(layer[..., 3:] / 255, 1e-3)
    return np.concatenate([layer[..., :3] / alpha, layer[..., 3:]], 2)


def _flatten(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Few flat colours: no gradients, no fine detail."""
    colour = np.clip(pixels[..., :3], 0, 255).astype(np.uint8)
    colour = cv2.medianBlur(colour, int(rng.choice([3, 5, 7])))
    levels = int(rng.integers(2, 6))
    step = 255 / levels
    return np.concatenate([np.round(colour / step) * step, pixels[..., 3:]], 2).astype(np.float32)


def _outline(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A line around the shape, often along its inner edges too; now and then the line alone on a pale fill."""
    height, width = pixels.shape[:2]
    thick = max(1, round(rng.uniform(0.008, 0.03) * max(height, width)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1, 2 * thick + 1))
    solid = (pixels[..., 3] > 128).astype(np.uint8)
    line = (solid - cv2.erode(solid, kernel, borderValue=0)).astype(np.float32)
    colour = pixels[..., :3]
    if rng.random() < 0.6:
        grey = cv2.cvtColor(np.clip(colour, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        edges = cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 1.2), 40, 110) // 255
        small = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thick + 1, thick + 1))
        line = np.maximum(line, cv2.dilate(edges * solid, small).astype(np.float32))
    if rng.random() < 0.2:
        colour = colour * 0.15 + rng.uniform(200, 255) * 0.85
    ink = rng.uniform(0, 60, 3) if rng.random() < 0.8 else rng.uniform(0, 255, 3)
    line = cv2.GaussianBlur(line, (0, 0), 0.7)[..., None]
    return np.concatenate([colour * (1 - line) + ink.astype(np.float32) * line, pixels[..., 3:]], 2)


def _recolour(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another palette: saturation from nearly grey to strong, a turn of hue, a curve for each channel."""
    colour = np.clip(pixels[..., :3], 0, 255)
    grey = colour @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = grey[..., None] + (colour - grey[..., None]) * (rng.uniform(0.2, 1.6))
    if rng.random() < 0.5:
        colour = colour @ hue_rotation(rng.uniform(-0.7, 0.7)).T
    gamma = np.exp(rng.normal(0, 0.25, 3) + rng.normal(0, 0.2)).astype(np.float32)
    return np.concatenate([255 * (np.clip(colour, 0, 255) / 255) ** gamma, pixels[..., 3:]], 2)


def _light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side, as if the shape were round."""
    solid = (pixels[..., 3] > 128).astype(np.uint8)
    depth = np.sqrt(cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 3)[1:-1, 1:-1])
    depth = cv2.GaussianBlur(depth, (0, 0), 2)
    angle = rng.uniform(0, 2 * np.pi)
    shade = np.cos(angle) * np.gradient(depth, axis=1) + np.sin(angle) * np.gradient(depth, axis=0)
    shade = 1 + rng.uniform(0.3, 0.9) * np.clip(shade * 2, -0.7, 0.7)
    return np.concatenate([pixels[..., :3] * shade[..., None], pixels[..., 3:]], 2).astype(np.float32)


def _surface(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grain, blotches, or a loss of sharpness."""
    height, width = pixels.shape[:2]
    colour = pixels[..., :3]
    kind = rng.random()
    if kind < 0.4:
        colour = colour + rng.normal(0, rng.uniform(5, 25), (height, width, 1)).astype(np.float32)
    elif kind < 0.75:
        colour = colour + rng.uniform(8, 30) * _smooth_noise(rng, (height, width), int(rng.integers(6, 24)))[..., None]
    else:
        colour = cv2.GaussianBlur(colour, (0, 0), rng.uniform(0.8, 2.5))
    return np.concatenate([colour, pixels[..., 3:]], 2)
