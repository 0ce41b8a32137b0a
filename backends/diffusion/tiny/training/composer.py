"""Compose pictures of a few objects on procedural backgrounds, with exact masks of what is visible.

This is the very composer that the embedded model was trained with (at 128 x 128). It works at any size and needs
only numpy and OpenCV, so that demos and tests can make annotated pictures without a network or a GPU::

    image, masks = compose([sprite_a, sprite_b], np.random.default_rng(0), size=(256, 256))

Sprites are uint8 RGBA arrays of any size. The first one is by convention the object of interest.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

REFERENCE = 128  # side for which all pixel figures below are given
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def compose(
    sprites: Sequence[np.ndarray],
    rng: np.random.Generator,
    size: tuple[int, int] = (128, 128),
    *,
    scales: Sequence[float] | None = None,
    min_visible: float = 0.45,
    attempts: int = 12,
    plain: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Paste ``sprites`` in random order, place, turn and colour on a random background.

    ``size`` is (height, width); ``scales`` are the sprites' longest sides as a share of the shorter image side
    (default: .25 to .7, up to .5 for three sprites and more). A layout in which some sprite shows less than
    ``min_visible`` of itself is thrown again, at most ``attempts`` times (the last one is then taken as it is).
    ``plain``: the ground is flat or a gradient.
    Returns the uint8 image (H, W, 3) and float32 masks (n, H, W): the share of each pixel that the sprite covers.
    """
    height, width = size
    side = min(height, width)
    count = len(sprites)
    smallest = 150 * (side / REFERENCE) ** 2
    for _ in range(attempts):
        image = background(rng, size, plain)
        chosen = scales if scales is not None else [rng.uniform(0.25, 0.7 if count < 3 else 0.5) for _ in range(count)]
        layers = [place(sprite, rng, scale, size) for sprite, scale in zip(sprites, chosen, strict=True)]
        visible = [layer[..., 3].copy() for layer in layers]
        order = rng.permutation(count)
        for position, below in enumerate(order):
            for above in order[position + 1 :]:
                visible[below] = visible[below] * (1 - layers[above][..., 3])
        if all(
            v.sum() > min_visible * max(layer[..., 3].sum(), 1) and v.sum() > smallest
            for v, layer in zip(visible, layers, strict=True)
        ):
            break
    for index in order:
        image = image * (1 - layers[index][..., 3:]) + layers[index][..., :3]
    if rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(0, 8), image.shape)
    masks = np.stack(visible).astype(np.float32) if count else np.zeros((0, height, width), np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), np.clip(masks, 0, 1)


def place(sprite: np.ndarray, rng: np.random.Generator, scale: float, size: tuple[int, int]) -> np.ndarray:
    """Turn, mirror, stretch and recolour one RGBA sprite; returns premultiplied float RGBA (H, W, 4), alpha 0..1."""
    height, width = size
    side = min(height, width)
    source = np.asarray(sprite, np.float32)
    alpha = source[..., 3:] / 255
    colour = np.clip(jitter(source[..., :3], rng), 0, 255) * alpha
    layer = np.ascontiguousarray(np.concatenate([colour, alpha], 2), np.float32)
    rows, columns = layer.shape[:2]
    factor = scale * side / max(rows, columns)
    angle = np.deg2rad(rng.uniform(-25, 25))
    mirror = -1 if rng.random() < 0.5 else 1
    matrix = np.array([[np.cos(angle) * mirror, -np.sin(angle)], [np.sin(angle) * mirror, np.cos(angle)]]) * factor
    if rng.random() < 0.5:
        matrix[:, 0] *= rng.uniform(0.85, 1.18)
    margin = scale * side / 2 * 0.75
    centre = np.array([rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)])
    affine = np.concatenate([matrix, (centre - matrix @ np.array([columns / 2, rows / 2]))[:, None]], 1)
    if factor < 0.62:  # keep the warp from skipping source pixels
        blur = max(2, round(0.75 / factor))
        layer = cv2.blur(layer, (blur, blur))
    return cv2.warpAffine(layer, affine, (width, height), flags=cv2.INTER_LINEAR)


def jitter(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mild random saturation, hue, contrast and brightness of float RGB 0..255."""
    grey = colour @ _LUMINANCE
    colour = grey[..., None] + (colour - grey[..., None]) * rng.uniform(0.7, 1.2)
    if rng.random() < 0.5:
        colour = colour @ hue_rotation(rng.uniform(-0.35, 0.35)).T
    return colour * rng.uniform(0.8, 1.15) + rng.uniform(-20, 20)


def hue_rotation(angle: float) -> np.ndarray:
    """Rotation of RGB space about the grey axis, (3, 3) float32."""
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3)
    k = (1 - cosine) / 3
    return np.array(
        [[cosine + k, k - sine, k + sine], [k + sine, cosine + k, k - sine], [k - sine, k + sine, cosine + k]],
        np.float32,
    )


def background(rng: np.random.Generator, size: tuple[int, int], plain: bool = False) -> np.ndarray:
    """One of eight kinds of procedural background, the first two if ``plain``; float32 (H, W, 3), about 0..255."""
    makers = (_flat, _gradient, _value_noise, _stripes, _checker, _blobs, _horizon, _mosaic)
    image = makers[rng.integers(0, 2 if plain else len(makers))](rng, size)
    return np.ascontiguousarray(image, np.float32)


def _colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 255, 3) if rng.random() < 0.7 else np.repeat(rng.uniform(0, 255), 3)


def _resize(grid: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(grid, np.float32), (size[1], size[0]), interpolation=interpolation)


def _pixels(value: float, size: tuple[int, int]) -> int:
    """A length given for the reference side, in pixels of this picture."""
    return max(1, round(value * min(size) / REFERENCE))


def _flat(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return np.broadcast_to(_colour(rng), (*size, 3))


def _gradient(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return _resize(np.stack([_colour(rng) for _ in range(4)]).reshape(2, 2, 3), size, cv2.INTER_LINEAR)


def _value_noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    n = int(rng.integers(3, 24))
    grid = _colour(rng) + rng.normal(0, rng.uniform(10, 60), (n, n, 3 if rng.random() < 0.5 else 1))
    return _resize(np.broadcast_to(grid, (n, n, 3)), size, cv2.INTER_CUBIC)


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    angle = rng.uniform(0, np.pi)
    period = rng.uniform(6, 40) * min(size) / REFERENCE
    rows, columns = np.mgrid[: size[0], : size[1]]
    wave = 0.5 + 0.5 * np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / period + rng.uniform(0, 6))
    if rng.random() < 0.5:
        wave = (wave > 0.5).astype(float)
    return wave[..., None] * _colour(rng) + (1 - wave[..., None]) * _colour(rng)


def _checker(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    n = int(rng.integers(3, 16))
    rows, columns = np.mgrid[:n, :n]
    odd = ((rows + columns) % 2).astype(np.float32)[..., None]
    return _resize(odd * _colour(rng) + (1 - odd) * _colour(rng), size, cv2.INTER_NEAREST)


def _blobs(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    image = np.empty((*size, 3), np.float32)
    image[:] = _colour(rng)
    for _ in range(int(rng.integers(3, 12))):
        centre = int(rng.integers(0, size[1])), int(rng.integers(0, size[0]))
        radius = _pixels(int(rng.integers(5, 50)), size)
        cv2.circle(image, centre, radius, tuple(float(v) for v in _colour(rng)), -1)
    blur = _pixels(int(rng.integers(1, 15)), size)
    return cv2.blur(image, (blur, blur))


def _horizon(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    image = np.empty((*size, 3), np.float32)
    line = int(rng.integers(30, 100) * size[0] / REFERENCE)
    image[:line] = _colour(rng)
    image[line:] = _colour(rng)
    image += np.linspace(-30, 30, size[0])[:, None, None] * rng.uniform(-1, 1)
    image += rng.normal(0, rng.uniform(0, 20), (*size, 1))
    return cv2.blur(image, (3, 3))


def _mosaic(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    n = int(rng.integers(4, 10))
    grid = rng.uniform(0, 255, (n, n, 3))
    image = _resize(grid, size, cv2.INTER_NEAREST if rng.random() < 0.5 else cv2.INTER_CUBIC)
    blur = _pixels(int(rng.integers(5, 31)), size)
    return cv2.blur(image, (blur, blur)) * rng.uniform(0.5, 1)
