"""Heat maps spread by the UNet's own self-attention: a pixel takes the mean of the map over the pixels that it attends to.

Objects come out whole where words light up parts of them.  Not in the paper, whose Eq. 8 weighs a map by the attention that
a pixel *receives*; the propagation is that of DiffSegmenter (arXiv:2309.02773), one step of it, and is a default
of a model's own reading (``read.spread`` in its ``ovam.json``), chosen on validation concepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from backends.attention.heatmaps import resize_maps
from backends.contract import BackendError, Capture

QUERIES, KEYS, LAYOUT_KEY = "affinity.queries", "affinity.keys", "affinity"
#: Most elements of a temporary: 4 MiB in float32, which stay in a cache; larger ones are fetched anew from the system each time.
_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Affinity:
    """Queries and keys of one image's self-attention layers at the finest grid, of the last recorded pass.

    Attributes:
        queries, keys: (layers, heads, P, d), P = height x width pixels in rows.
        grid: (height, width).
    """

    queries: torch.Tensor
    keys: torch.Tensor
    grid: tuple[int, int]

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors by name for ``Capture.tensors``."""
        return {QUERIES: self.queries.contiguous(), KEYS: self.keys.contiguous()}

    def layout(self) -> dict[str, Any]:
        """JSON-serialisable part of ``CaptureInfo.layout``."""
        return {LAYOUT_KEY: list(self.grid)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], layout: Mapping[str, Any]) -> Affinity:
        """Inverse of the two methods above.

        Raises:
            BackendError: a tensor is missing or does not fit the grid.
        """
        grid, queries, keys = layout.get(LAYOUT_KEY), tensors.get(QUERIES), tensors.get(KEYS)
        if grid is None or queries is None or keys is None:
            raise BackendError("The capture lacks its self-attention's queries or keys; read the image again.")
        found = cls(queries, keys, (int(grid[0]), int(grid[1])))
        if queries.ndim != 4 or queries.shape != keys.shape or queries.shape[2] != found.grid[0] * found.grid[1]:
            raise BackendError(
                f"Self-attention queries {tuple(queries.shape)} and keys {tuple(keys.shape)} do not fit the grid "
                f"{found.grid[0]} x {found.grid[1]}; read the image again."
            )
        return found

    def spread(self, maps: torch.Tensor) -> torch.Tensor:
        """A @ maps, A the mean over layers and heads of softmax(Q K^T / sqrt(d)).

        Args:
            maps: (classes, h, w) float; resized where its grid is another.

        Returns:
            As ``maps``, on its device.  Each pixel is a weighted mean of the map, so values stay within its range.
        """
        if not len(maps):
            return maps
        layers, heads, pixels, width = self.queries.shape
        flat = resize_maps(maps.float(), self.grid).flatten(1).T
        queries = self.queries.to(maps.device).flatten(0, 1).float() * width**-0.5
        columns = self.keys.to(maps.device).flatten(0, 1).float().transpose(1, 2)
        out = torch.empty_like(flat)
        rows = max(1, _MOST // (layers * heads * pixels))
        for first in range(0, pixels, rows):
            attention = torch.matmul(queries[:, first : first + rows], columns).softmax(-1).mean(0)
            out[first : first + rows] = attention @ flat
        spread = out.T.reshape(len(maps), *self.grid)
        return resize_maps(spread, (maps.shape[-2], maps.shape[-1])).to(maps.dtype)


def holds_affinity(capture: Capture) -> bool:
    """Whether the capture's maps are to be spread."""
    return LAYOUT_KEY in capture.info.layout


def without_affinity(capture: Capture) -> Capture:
    """The capture whose maps are Eq. 5's."""
    layout = {name: value for name, value in capture.info.layout.items() if name != LAYOUT_KEY}
    tensors = {name: tensor for name, tensor in capture.tensors.items() if name not in (QUERIES, KEYS)}
    return Capture(replace(capture.info, layout=layout), tensors)
