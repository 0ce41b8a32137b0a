"""Passes over stored queries in plain torch; see :class:`backends.attention.passes.Passes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from backends.attention.stored import BLOCK, StoredQueries

#: Numbers of queries converted at a time: 2.5 MB in float32, which stay in a core's cache between conversion and product.
#: A GPU takes more, so that a pass is a handful of launches.
TILE_CPU, TILE_GPU = 640_000, 1 << 26


class TorchPasses:
    """Works on any device and dtype.

    On the CPU tiles are converted to float32 (float64 where the queries are); on a GPU products are taken in half
    precision where the queries are stored in no more than that, with sums in float32.
    """

    def __init__(
        self, layers: Sequence[StoredQueries], compute: torch.dtype | None = None, most: int | None = None
    ) -> None:
        """Args: compute replaces the dtype of the products; most bounds the numbers of a tile further."""
        self._layers = list(layers)
        self._compute = compute
        self._most = most

    def project(self, keys: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self._project(layer, k) for layer, k in zip(self._layers, keys, strict=True)]

    def squash(
        self, logits: Sequence[torch.Tensor], direction: Sequence[torch.Tensor] | None = None, length: float = 0.0
    ) -> list[torch.Tensor]:
        found = []
        for number, layer in enumerate(self._layers):
            here = logits[number]
            if here.device.type == "cuda":  # a handful of launches instead of a handful a step
                if direction is not None and length:
                    here = torch.add(here, direction[number], alpha=length)
                found.append(at_once(layer, here))
                continue
            sums = here.new_zeros(layer.blocks.shape[1], BLOCK)
            for step, weight in enumerate(layer.weights()):
                rows = slice(step * len(sums), (step + 1) * len(sums))
                values = here[rows]
                if direction is not None and length:
                    values = torch.add(values, direction[number][rows], alpha=length)
                sums += torch.sigmoid(values).sum(1) * weight
            found.append(sums)
        return found

    def pull(self, logits: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self._pull(layer, z, g) for layer, z, g in zip(self._layers, logits, gradients, strict=True)]

    def class_sums(self, keys: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self._class_sums(layer, k) for layer, k in zip(self._layers, keys, strict=True)]

    def _project(self, layer: StoredQueries, keys: torch.Tensor) -> torch.Tensor:
        out = keys.new_empty(layer.steps * layer.blocks.shape[1], layer.heads, BLOCK)
        for first, last, tile, scaled in self.tiles(layer, keys[:, None], keys.dtype):
            out[first:last] = torch.matmul(scaled, tile)[:, :, 0].to(out.dtype)
        return out

    def _pull(self, layer: StoredQueries, logits: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.new_zeros(layer.heads, layer.head_size)
        weights = torch.tensor(layer.weights(), device=gradient.device, dtype=gradient.dtype)
        blocks = layer.blocks.shape[1]
        for first, last, tile, _ in self.tiles(layer, None, gradient.dtype):
            item = torch.arange(first, last, device=gradient.device)
            s = torch.sigmoid(logits[first:last])
            outer = gradient[item % blocks] * weights[item // blocks, None]
            slope = (outer[:, None] * s * (1 - s)).to(tile.dtype)
            pulled = torch.matmul(slope[:, :, None], tile.transpose(2, 3))[:, :, 0].to(total.dtype)
            if layer.scales is not None:
                pulled *= layer.scales[item // blocks].to(total.dtype)
            total += pulled.sum(0)
        return total

    def _class_sums(self, layer: StoredQueries, keys: torch.Tensor) -> torch.Tensor:
        blocks = layer.blocks.shape[1]
        weights = torch.tensor(layer.weights(), device=keys.device, dtype=keys.dtype)
        sums = keys.new_zeros(blocks, keys.shape[2], BLOCK)
        for first, last, tile, scaled in self.tiles(layer, keys.transpose(1, 2), keys.dtype):
            item = torch.arange(first, last, device=keys.device)
            found = torch.sigmoid(torch.matmul(scaled, tile)).to(keys.dtype).sum(1)
            sums.index_add_(0, item % blocks, found * weights[item // blocks, None, None])
        return sums.transpose(0, 1)

    def tiles(
        self, layer: StoredQueries, keys: torch.Tensor | None, result: torch.dtype
    ) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        """(first item, last item, their numbers (n, heads, d_head, 64), keys (n or 1, heads, m, d_head) with scales).

        Args:
            keys: (heads, m, d_head); the scales of int8 queries are folded into them, never into the numbers.
            result: dtype of what is computed; float64 asks for products in it.
        """
        blocks = layer.blocks.shape[1]
        flat = layer.blocks.flatten(0, 1)
        dtype = self._dtype(layer) if result != torch.float64 else result
        most = TILE_GPU if layer.device.type == "cuda" else TILE_CPU
        width = max(1, min(most, self._most or most) // (layer.heads * layer.head_size * BLOCK))
        for first in range(0, len(flat), width):
            last = min(first + width, len(flat))
            scaled = torch.empty(0)
            if keys is not None and layer.scales is not None:
                steps = torch.arange(first, last, device=layer.device) // blocks
                scaled = (keys * layer.scales[steps, :, None].to(keys.dtype)).to(dtype)
            elif keys is not None:
                scaled = keys[None].to(dtype)
            yield first, last, flat[first:last].to(dtype), scaled

    def _dtype(self, layer: StoredQueries) -> torch.dtype:
        if self._compute is not None:
            return self._compute
        stored = layer.blocks.dtype
        if layer.device.type == "cuda" and stored in (torch.int8, torch.float16, torch.bfloat16):
            return torch.bfloat16 if stored == torch.bfloat16 else torch.float16
        return torch.float32


def at_once(layer: StoredQueries, logits: torch.Tensor) -> torch.Tensor:
    """Weighted sum over steps, sum over heads, of the logits' (N, heads, 64) sigmoids: (B, 64)."""
    sums = torch.sigmoid(logits).sum(1).view(layer.steps, -1, BLOCK)
    return torch.tensordot(torch.tensor(layer.weights(), device=sums.device, dtype=sums.dtype), sums, 1)
