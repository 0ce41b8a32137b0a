"""Queries as they are stored and streamed: (step, pixel block, head, channel, 64 pixels), plain or int8 with scales.

A pass reads the tensor from front to back: a head's block of 64 pixels is one piece of memory, its channels are rows of
64 numbers, and a thread works on its own pixel blocks.  Steps come first, so a step is stored as soon as it is recorded
and a selection of steps is a slice.  Memory-mapped tensors stay mapped: whoever reads converts a few blocks at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from backends.contract import BackendError

#: Pixels of a block; the last one is padded with zeros.
BLOCK = 64
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8)


@dataclass(frozen=True, slots=True)
class StoredQueries:
    """Queries of one cross-attention layer (Eq. 1) in their stored form.

    Attributes:
        name, heads, height, width, scale: as in :class:`backends.attention.queries.LayerQueries`.
        blocks: (steps, ceil(height * width / 64), heads, d_head, 64), a floating dtype or int8.
        scales: (steps, heads, d_head) float32 that int8 numbers are multiplied with; ``None`` for floating dtypes.
        counts: recorded steps that each stored step is the mean of; a step weighs that much in a mean over steps.
    """

    name: str
    heads: int
    height: int
    width: int
    scale: float
    blocks: torch.Tensor
    scales: torch.Tensor | None
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        b, pixels = self.blocks, self.height * self.width
        expected = (len(self.counts), -(-pixels // BLOCK), self.heads, BLOCK)
        if b.ndim != 5 or (*b.shape[:3], b.shape[4]) != expected or not self.counts or min(self.counts) < 1:
            raise BackendError(
                f"Stored queries of layer {self.name!r} have shape {tuple(b.shape)}; expected "
                f"({expected[0]} steps, {expected[1]} blocks, {self.heads} heads, d_head, {BLOCK})."
            )
        if b.dtype not in _DTYPES:
            raise BackendError(f"Stored queries of layer {self.name!r} are {b.dtype}; floating or int8 is needed.")
        if (self.scales is None) != (b.dtype != torch.int8):
            raise BackendError(f"Stored queries of layer {self.name!r} need scales exactly when they are int8.")
        if self.scales is not None and self.scales.shape != (b.shape[0], self.heads, b.shape[3]):
            raise BackendError(
                f"Scales of layer {self.name!r} have shape {tuple(self.scales.shape)}; "
                f"expected {(b.shape[0], self.heads, b.shape[3])}."
            )

    @property
    def steps(self) -> int:
        return self.blocks.shape[0]

    @property
    def head_size(self) -> int:
        return self.blocks.shape[3]

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def device(self) -> torch.device:
        return self.blocks.device

    def nbytes(self) -> int:
        """Of the numbers and their scales."""
        scales = 0 if self.scales is None else self.scales.numel() * self.scales.element_size()
        return self.blocks.numel() * self.blocks.element_size() + scales

    def weights(self) -> tuple[float, ...]:
        """Of each stored step in a mean over steps; they add up to their number."""
        total = sum(self.counts)
        return tuple(count * len(self.counts) / total for count in self.counts)

    def plain_steps(self, dtype: torch.dtype = torch.float32) -> Iterator[torch.Tensor]:
        """(heads, pixels, d_head) of each step in turn, the numbers the stored ones stand for."""
        for step in range(self.steps):
            block = self.blocks[step].to(dtype)
            if self.scales is not None:
                block = block * self.scales[step, :, :, None].to(dtype)
            yield block.permute(1, 0, 3, 2).reshape(self.heads, -1, self.head_size)[:, : self.pixels]

    def plain(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(steps, heads, pixels, d_head), the whole layer; for tests and comparisons, not for a pass over an image."""
        return torch.stack(list(self.plain_steps(dtype)))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> StoredQueries:
        """The same on another device, or as numbers of a floating dtype."""
        blocks, scales = self.blocks.to(device or self.device), self.scales
        if dtype is not None:
            blocks = blocks.to(dtype)
            if scales is not None:
                blocks = blocks * scales[:, None, :, :, None].to(blocks)
                scales = None
        return replace(self, blocks=blocks, scales=None if scales is None else scales.to(blocks.device))

    def at_steps(self, steps: Sequence[int]) -> StoredQueries:
        """Only these stored steps; evenly spaced ones share the memory."""
        index = _slice(steps)
        return replace(
            self,
            blocks=self.blocks[index],
            scales=None if self.scales is None else self.scales[index],
            counts=tuple(self.counts[k] for k in steps),
        )

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors by name, contiguous as safetensors needs them."""
        found = {prefix: self.blocks.contiguous()}
        if self.scales is not None:
            found[prefix + ".scales"] = self.scales.contiguous()
        return found

    def describe(self) -> dict[str, Any]:
        """JSON-serialisable; the inverse is :func:`stored_from`."""
        return {
            "name": self.name,
            "heads": self.heads,
            "height": self.height,
            "width": self.width,
            "scale": self.scale,
            "form": "blocks",
            "counts": list(self.counts),
        }


def pack_step(
    queries: torch.Tensor, dtype: torch.dtype, carry: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One step's (heads, pixels, d_head) queries as (blocks, heads, d_head, 64) numbers and (heads, d_head) scales.

    A scale is the largest magnitude of its channel over the pixels divided by 127, so no number is clipped.

    Args:
        carry: (heads, pixels, d_head) float32, what rounding to int8 took from the step before: it is added to this one,
            and replaced by what this one loses.  A map is a mean over steps whose queries differ little, so the errors of
            neighbours cancel instead of adding up.  Other dtypes leave it alone.
    """
    heads, pixels, size = queries.shape
    scales = None
    if dtype == torch.int8:
        values = queries.float() if carry is None else carry.add_(queries)
        scales = values.abs().amax(1) / 127
        steps = scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        queries = (values / steps).round_().clamp_(-127, 127)
        if carry is not None:
            carry.addcmul_(queries, steps, value=-1)
    padded = torch.zeros(-(-pixels // BLOCK) * BLOCK, heads, size, dtype=dtype, device=queries.device)
    padded[:pixels] = queries.transpose(0, 1)
    return padded.view(-1, BLOCK, heads, size).permute(0, 2, 3, 1).contiguous(), scales


def join_steps(
    name: str,
    grid: tuple[int, int],
    scale: float,
    steps: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
    counts: Sequence[int],
) -> StoredQueries:
    """A layer of the steps that :func:`pack_step` made."""
    scales = [s for _, s in steps if s is not None]
    return StoredQueries(
        name=name,
        heads=steps[0][0].shape[1],
        height=grid[0],
        width=grid[1],
        scale=scale,
        blocks=torch.stack([numbers for numbers, _ in steps]),
        scales=torch.stack(scales) if scales else None,
        counts=tuple(counts),
    )


def _slice(steps: Sequence[int]) -> slice | list[int]:
    """The indices as a slice where they rise evenly."""
    gaps = {b - a for a, b in zip(steps, steps[1:], strict=False)}
    if len(gaps) > 1 or any(g < 1 for g in gaps):
        return list(steps)
    return slice(steps[0], steps[-1] + 1, gaps.pop() if gaps else 1)
