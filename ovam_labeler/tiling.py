"""Reading a large picture in parts, for objects smaller than a cell of the map.

A base model reads every picture at one size, so an object of a hundredth of a large picture is less than a cell of its map.
Each part is read as a picture of its own, at the model's full size; their maps are laid over one another, each weighed by how
probable the class is in that part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ovam_labeler.domain import LoadedImage

#: Share of a part that lies in its neighbour as well, so that an object cut by one is whole in the other.
OVERLAP = 0.25

#: Parts smaller than this many pixels a side hold nothing that the whole picture does not.
SMALLEST = 64

#: Longest side of a map put together, in cells.
LARGEST_MAP = 512


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``top``..``bottom`` and columns ``left``..``right`` of a picture, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


def parts_of(height: int, width: int, along: int) -> list[Part]:
    """Square parts that cover a picture, ``along`` of them along its longer side; none where they would be too small."""
    if along < 2:
        return []
    side = max(height, width) / (1 + (along - 1) * (1 - OVERLAP))
    if side < SMALLEST:
        return []
    return [Part(t, b, left, r) for t, b in _spans(height, side) for left, r in _spans(width, side)]


def cut(image: LoadedImage, part: Part) -> LoadedImage:
    """A part as a picture of its own, with an identity of its own: its capture is cached like any other."""
    place = f"{image.sha256}:{part.top}:{part.bottom}:{part.left}:{part.right}"
    pixels = np.ascontiguousarray(image.pixels[part.top : part.bottom, part.left : part.right])
    return LoadedImage(pixels, hashlib.sha256(place.encode()).hexdigest())


def together(
    height: int, width: int, parts: Sequence[Part], maps: Sequence[torch.Tensor], weights: Sequence[Sequence[float]]
) -> torch.Tensor:
    """One map a class over the whole picture.

    Args:
        maps: (classes, h, w) float32 of each part.
        weights: of each part, a number 0..1 for each class: how probable it is there.

    Returns:
        (classes, H, W) float32.  Where parts lie over one another, each counts the more the further from its edge.
    """
    cells = max(m.shape[-1] / (p.right - p.left) for m, p in zip(maps, parts, strict=True))
    scale = min(cells, LARGEST_MAP / max(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    total = torch.zeros(len(maps[0]), rows, columns)
    weight = torch.zeros(rows, columns)
    for part, heat, probable in zip(parts, maps, weights, strict=True):
        top, bottom = _place(part.top, part.bottom, rows / height, rows)
        left, right = _place(part.left, part.right, columns / width, columns)
        size = (bottom - top, right - left)
        laid = F.interpolate(heat[None].float(), size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        near = _fade(size[0])[:, None] * _fade(size[1])[None]
        total[:, top:bottom, left:right] += laid * torch.tensor(list(probable))[:, None, None] * near
        weight[top:bottom, left:right] += near
    return total / weight.clamp(min=1e-6)


def _spans(length: int, side: float) -> list[tuple[int, int]]:
    """Evenly spaced spans of ``side`` pixels over a length."""
    if length <= side:
        return [(0, length)]
    count = int(np.ceil((length - side) / (side * (1 - OVERLAP)) - 1e-6)) + 1
    step = (length - side) / (count - 1)
    return [(round(k * step), min(length, round(k * step + side))) for k in range(count)]


def _place(start: int, end: int, scale: float, most: int) -> tuple[int, int]:
    first = min(int(start * scale + 0.5), most - 1)
    return first, max(first + 1, min(most, int(end * scale + 0.5)))


def _fade(length: int) -> torch.Tensor:
    """1 in the middle, falling towards both ends over the overlap, never 0."""
    at = torch.arange(length, dtype=torch.float32) + 0.5
    return (torch.minimum(at, length - at) / max(length * OVERLAP, 0.5)).clamp(max=1.0)
