"""Points and boxes pick parts of a proposed mask, and parts of the map below its threshold.

A box clips.  A positive point picks the connected object it lies in; where the mask has none, the object that the map has
there at a lower level.  A negative point takes away the object it lies in, or, where a positive point lies in the same one,
the part of it that belongs to the negative point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ovam_labeler.masks.components import components
from ovam_labeler.masks.contours import filled

#: Picking works on at most this many pixels; larger pictures are picked on every n-th.
WORK_PIXELS = 1 << 22

#: Share of the map's height at a point down to which pixels belong to it.
REACH = 0.8

#: A grown object may cover this share of the picture at most: beyond it the map says nothing of the point.
LARGEST = 0.3

#: What is left of an object must be at least this share of it, else it is parted by distance.
LEAST = 0.1


@dataclass(frozen=True, slots=True)
class Point:
    """``x`` and ``y`` are shares 0..1 of width and height."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Box:
    """Four (x, y) corners in order, as shares 0..1 of width and height."""

    corners: tuple[tuple[float, float], ...]
    positive: bool = True


def pick(mask: np.ndarray, soft: np.ndarray, points: Sequence[Point], boxes: Sequence[Box]) -> np.ndarray:
    """The part of a mask that is meant.

    Args:
        mask: bool (H, W), the label's proposal, drawn whether or not the class was judged present.
        soft: (h, w) float >= 0, its heat map, of any scale.
        points, boxes: what the annotator clicked; without any positive one, the mask less the negative ones.

    Returns:
        bool (H, W); empty where the map has nothing there.
    """
    step = max(1, int(np.ceil(np.sqrt(mask.size / WORK_PIXELS))))
    small = mask[step // 2 :: step, step // 2 :: step] if step > 1 else mask
    picked = _pick(small, _enlarged(soft, small.shape), points, boxes)
    if step == 1:
        return picked
    rows = (np.arange(mask.shape[0]) // step).clip(max=small.shape[0] - 1)
    columns = (np.arange(mask.shape[1]) // step).clip(max=small.shape[1] - 1)
    return picked[rows[:, None], columns]


def _pick(mask: np.ndarray, soft: np.ndarray, points: Sequence[Point], boxes: Sequence[Box]) -> np.ndarray:
    wanted = [_at(p, mask.shape) for p in points if p.positive]
    unwanted = [_at(p, mask.shape) for p in points if not p.positive]
    inside = np.ones_like(mask)
    if any(b.positive for b in boxes):
        inside = np.logical_or.reduce([_area(b, mask.shape) for b in boxes if b.positive])
    for box in boxes:
        if not box.positive:
            inside &= ~_area(box, mask.shape)
    base = mask & inside
    if wanted:
        picked = np.zeros_like(mask)
        for at in wanted:
            picked |= _object_at(base, at) if base[at] else _grown(soft, inside, at)
    elif base.any() or not any(b.positive for b in boxes):
        picked = base
    else:
        picked = _grown(soft, inside, _peak(soft, inside))
    for at in unwanted:
        if picked[at]:
            picked = _without(picked, soft, at, [w for w in wanted if picked[w]])
    return picked


def _without(picked: np.ndarray, soft: np.ndarray, at: tuple[int, int], kept: list[tuple[int, int]]) -> np.ndarray:
    """Less the object at a point; where a wanted point lies in it as well, less the part of it like the unwanted one."""
    whole = _object_at(picked, at)
    rivals = [k for k in kept if whole[k]]
    rest = picked & ~whole
    if not rivals:
        return rest
    higher = whole & (soft > soft[at])
    left = np.logical_or.reduce([_object_at(higher, k) for k in rivals])
    if all(higher[k] for k in rivals) and left.sum() >= LEAST * whole.sum():
        return rest | left
    y, x = np.nonzero(whole)
    own = (y - at[0]) ** 2 + (x - at[1]) ** 2
    nearest = np.minimum.reduce([(y - k[0]) ** 2 + (x - k[1]) ** 2 for k in rivals])
    near = np.zeros_like(whole)
    near[y, x] = nearest < own
    return rest | near


def _grown(soft: np.ndarray, inside: np.ndarray, at: tuple[int, int]) -> np.ndarray:
    """What the map has at a point below the mask's threshold; empty where it has nothing that ends."""
    if not inside[at] or soft[at] <= 0:
        return np.zeros_like(inside)
    found = _object_at((soft >= REACH * soft[at]) & inside, at)
    most = LARGEST * inside.size if inside.all() else inside.sum()
    return found if found.sum() <= most else np.zeros_like(inside)


def _peak(soft: np.ndarray, inside: np.ndarray) -> tuple[int, int]:
    at = int(np.where(inside, soft, -1.0).argmax())
    return at // soft.shape[1], at % soft.shape[1]


def _object_at(mask: np.ndarray, at: tuple[int, int]) -> np.ndarray:
    if not mask[at]:
        return np.zeros_like(mask)
    labels, _ = components(mask)
    return labels == labels[at]


def _at(point: Point, shape: tuple[int, ...]) -> tuple[int, int]:
    """Row and column of the pixel a point lies in; points beyond the picture are on its edge."""
    return (
        min(max(int(point.y * shape[0]), 0), shape[0] - 1),
        min(max(int(point.x * shape[1]), 0), shape[1] - 1),
    )


def _area(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape
    return filled(np.array(box.corners, dtype=np.float64) * (width, height), height, width)


def _enlarged(soft: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The map at the mask's size, 0 at its least value and 1 at its highest."""
    low, high = float(soft.min()), float(soft.max())
    level = (soft - low) / max(high - low, 1e-12)
    image = Image.fromarray(level.astype(np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), dtype=np.float32).clip(0, 1)
