"""Guided filter (He, Sun, Tang 2010) in its fast form (He, Sun 2015): a soft map takes over the image's edges.

In each window the output is a linear function of the guide, fitted to the soft map.  The fit is done on a reduced grid and its
coefficients are upsampled, so the cost hardly depends on the radius and is some milliseconds at 512 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from backends.contract import BackendError

#: Rows of the image that are refined at a time.
_ROWS = 256


@dataclass(frozen=True, slots=True)
class GuidedFilter:
    """Refiner "guided-filter".

    Attributes:
        radius: of the window, as a share of the image's shorter side.  A cell or more of the heat map's grid: an edge of a
            16 x 16 map may lie a cell away from the object's.  Of 1/64 to 1/4, 1/12 was best on 16 x 16 maps of composed
            scenes with validation concepts.
        smoothness: epsilon of the fit, in squared units of a guide in 0..1; edges of less contrast than its root are
            smoothed over.
        colour: use the three channels as the guide; ``False``: their mean, faster and blind to edges between colours of
            equal brightness.
        grid: longest side of the reduced grid in pixels.
    """

    radius: float = 1 / 12
    smoothness: float = 1e-3
    colour: bool = True
    grid: int = 128
    name: str = "guided-filter"

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 0.5:
            raise BackendError(f"radius is {self.radius}; a share of the shorter side in 0..0.5 is allowed.")
        if self.smoothness <= 0:
            raise BackendError(f"smoothness is {self.smoothness}; it must be above 0.")
        if self.grid < 16:
            raise BackendError(f"grid is {self.grid}; at least 16 pixels are needed.")

    def refine(self, image: np.ndarray, soft: np.ndarray) -> np.ndarray:
        """Sharpen a soft map.

        Args:
            image: uint8 (H, W, 3).
            soft: float (H, W) in 0..1.

        Returns:
            float32 (H, W) in 0..1.

        Raises:
            BackendError: wrong shapes or types, or values that are not finite.
        """
        check_refiner_input(image, soft)
        height, width = soft.shape
        factor = min(1.0, self.grid / max(height, width))
        small = (max(1, round(height * factor)), max(1, round(width * factor)))
        window = max(1, round(self.radius * min(small)))
        # Channel by channel, and at full size strip by strip: a float copy of a large image would take fifty megabytes,
        # and the coefficients at full size as much again.
        small_guide = torch.cat([_pooled(image[:, :, c].astype(np.float32) / 255, small) for c in range(3)], 1)
        if not self.colour:
            small_guide = small_guide.mean(1, keepdim=True)
        small_source = _pooled(np.asarray(soft, np.float32), small)
        coefficients = torch.cat(_fit(small_guide, small_source, window, self.smoothness), 1)
        wide = F.interpolate(coefficients, size=(small[0], width), mode="bilinear", align_corners=False)[0]
        place = ((torch.arange(height) + 0.5) * (small[0] / height) - 0.5).clamp(0, small[0] - 1)
        above = place.floor().long()
        below, share = (above + 1).clamp(max=small[0] - 1), (place - above)[None, :, None]
        refined = np.empty((height, width), np.float32)
        for first in range(0, height, _ROWS):
            rows = slice(first, first + _ROWS)
            here = torch.lerp(wide[:, above[rows]], wide[:, below[rows]], share[:, rows])
            guide = torch.from_numpy(np.array(image[rows])).permute(2, 0, 1).float() / 255
            if not self.colour:
                guide = guide.mean(0, keepdim=True)
            refined[rows] = ((here[:-1] * guide).sum(0) + here[-1]).clamp(0, 1).numpy()
        return refined


def check_refiner_input(image: np.ndarray, soft: np.ndarray) -> None:
    """Raise :class:`BackendError` unless ``image`` is uint8 (H, W, 3) and ``soft`` finite (H, W) in 0..1."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise BackendError(f"The image has shape {image.shape} and type {image.dtype}; uint8 (H, W, 3) is needed.")
    if soft.shape != image.shape[:2]:
        raise BackendError(f"The soft map has shape {soft.shape}; the image's {image.shape[:2]} is needed.")
    if not np.isfinite(soft).all() or soft.min() < 0 or soft.max() > 1:
        raise BackendError("The soft map has values outside 0..1; normalise it before refining.")


def _pooled(values: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(1, 1, h, w) area means of a float32 (H, W)."""
    return F.adaptive_avg_pool2d(torch.from_numpy(np.require(values, requirements=("C", "W")))[None, None], size)


def _fit(
    guide: torch.Tensor, source: torch.Tensor, window: int, smoothness: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Window-averaged slopes (1, C, h, w) and offsets (1, 1, h, w) of source ~ slope . guide + offset."""
    channels = guide.shape[1]
    pairs = [(i, j) for i in range(channels) for j in range(i, channels)]
    products = [guide[:, i : i + 1] * guide[:, j : j + 1] for i, j in pairs]
    means = _box(torch.cat([guide, source, guide * source, *products], 1), window)
    mean_guide, mean_source = means[:, :channels], means[:, channels : channels + 1]
    covariance = means[:, channels + 1 : 2 * channels + 1] - mean_guide * mean_source
    entries = {
        pair: means[:, 2 * channels + 1 + k : 2 * channels + 2 + k]
        - mean_guide[:, pair[0] : pair[0] + 1] * mean_guide[:, pair[1] : pair[1] + 1]
        + (smoothness if pair[0] == pair[1] else 0.0)
        for k, pair in enumerate(pairs)
    }
    slope = _solve_three(entries, covariance) if channels == 3 else covariance / entries[0, 0]
    offset = mean_source - (slope * mean_guide).sum(1, keepdim=True)
    averaged = _box(torch.cat([slope, offset], 1), window)
    return averaged[:, :channels], averaged[:, channels:]


def _solve_three(m: dict[tuple[int, int], torch.Tensor], right: torch.Tensor) -> torch.Tensor:
    """Solve symmetric 3 x 3 systems at every pixel by cofactors: far faster than a batch of tiny factorisations.

    Args:
        m: upper triangle, (1, 1, h, w) each.
        right: (1, 3, h, w).
    """
    a, b, c, d, e, f = m[0, 0], m[0, 1], m[0, 2], m[1, 1], m[1, 2], m[2, 2]
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    bb, bc, cc = a * f - c * c, b * c - a * e, a * d - b * b
    x, y, z = right[:, 0:1], right[:, 1:2], right[:, 2:3]
    determinant = a * aa + b * ab + c * ac
    return torch.cat([aa * x + ab * y + ac * z, ab * x + bb * y + bc * z, ac * x + bc * y + cc * z], 1) / determinant


def _box(x: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean over (2 radius + 1) squared pixels, over the part inside the image at its border."""
    side = 2 * radius + 1
    x = F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)
    return F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
