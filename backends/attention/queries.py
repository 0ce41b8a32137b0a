"""Pixel queries and key projections: the two halves of Eq. 3-5 as plain tensors (paper, sections 3.1-3.2).

A capture of the queries keeps, for each cross-attention layer, Q of every recorded step and head.  (height, width) travel
with each layer because the number of pixels alone does not tell a 16 x 24 grid from a 24 x 16 one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from backends.contract import BackendError

#: Prefix of the tensors' names in ``Capture.tensors``, and the key of their description in ``CaptureInfo.layout``.
PREFIX = "queries."
LAYOUT_KEY = "queries"


@dataclass(frozen=True, slots=True)
class LayerQueries:
    """Queries of one cross-attention layer (Eq. 1).

    Attributes:
        name: of the layer, unique in a bundle; the key projection of the same name belongs to it.
        heads: number of attention heads.
        height, width: the layer's grid; pixels are stored row by row.
        scale: of the logits before the softmax, 1 / sqrt(d_head) in Eq. 3.
        queries: (steps, heads, height * width, d_head), any floating dtype, unscaled.
    """

    name: str
    heads: int
    height: int
    width: int
    scale: float
    queries: torch.Tensor

    def __post_init__(self) -> None:
        q = self.queries
        if q.ndim != 4 or q.shape[1] != self.heads or q.shape[2] != self.height * self.width or q.shape[0] < 1:
            raise BackendError(
                f"Queries of layer {self.name!r} have shape {tuple(q.shape)}; expected (steps >= 1, {self.heads}, "
                f"{self.height * self.width} = {self.height} x {self.width}, d_head)."
            )
        if not q.is_floating_point():
            raise BackendError(f"Queries of layer {self.name!r} are {q.dtype}; a floating dtype is needed.")

    @property
    def steps(self) -> int:
        return self.queries.shape[0]

    @property
    def head_size(self) -> int:
        return self.queries.shape[3]


@dataclass(frozen=True, slots=True)
class KeyProjection:
    """The key projection l_K of one layer (Eq. 4): weights a model keeps once, never per image.

    Attributes:
        name: of the layer.
        weight: (heads * d_head, E), rows grouped by head as in diffusers' ``to_k``.
        heads: number of attention heads.
        scale: as in :class:`LayerQueries`.
    """

    name: str
    weight: torch.Tensor
    heads: int
    scale: float

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.heads < 1 or self.weight.shape[0] % self.heads:
            raise BackendError(
                f"Key projection {self.name!r} has shape {tuple(self.weight.shape)}; expected (heads * d_head, E) with "
                f"{self.heads} heads."
            )

    @property
    def embedding_size(self) -> int:
        return self.weight.shape[1]

    def keys(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scaled keys of (..., E) embeddings: (heads, d_head, ...) so that ``queries @ keys`` are softmax logits."""
        weight = self.weight.to(device=embeddings.device, dtype=embeddings.dtype)
        flat = embeddings.reshape(-1, embeddings.shape[-1])
        keys = (weight @ flat.T) * self.scale
        return keys.reshape(self.heads, -1, *embeddings.shape[:-1])


@dataclass(frozen=True, slots=True)
class QueryBundle:
    """Queries of all recorded layers of one image.

    Attributes:
        layers: in recording order, names unique.
    """

    layers: tuple[LayerQueries, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise BackendError("A query bundle needs at least one layer.")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise BackendError(f"Layer names of a query bundle must be unique; got {', '.join(names)}.")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the layer with most pixels: the grid of Eq. 5's maps."""
        largest = max(self.layers, key=lambda layer: layer.height * layer.width)
        return largest.height, largest.width

    @property
    def steps(self) -> int:
        """Recorded steps (of the first layer; the built-in readers record the same number in all layers)."""
        return self.layers[0].steps

    @property
    def device(self) -> torch.device:
        return self.layers[0].queries.device

    def nbytes(self) -> int:
        return sum(layer.queries.numel() * layer.queries.element_size() for layer in self.layers)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> QueryBundle:
        """The same queries on another device or in another floating dtype; shares memory where nothing changes."""
        return QueryBundle(
            tuple(
                replace(layer, queries=layer.queries.to(device=device or layer.queries.device, dtype=dtype))
                for layer in self.layers
            )
        )

    def select(self, layers: Sequence[str] | None = None, steps: Sequence[int] | None = None) -> QueryBundle:
        """Only the named layers (all = ``None``) and step indices (all = ``None``).

        Raises:
            BackendError: a name or an index does not exist.
        """
        chosen = self.layers
        if layers is not None:
            by_name = {layer.name: layer for layer in self.layers}
            missing = [name for name in layers if name not in by_name]
            if missing:
                raise BackendError(f"Layer {missing[0]!r} was not recorded; recorded are {', '.join(by_name)}.")
            chosen = tuple(by_name[name] for name in layers)
        if steps is None:
            return QueryBundle(chosen)
        for layer in chosen:
            if not steps or min(steps) < 0 or max(steps) >= layer.steps:
                raise BackendError(
                    f"Steps {list(steps)} were asked of layer {layer.name!r}; it has 0..{layer.steps - 1}."
                )
        return QueryBundle(tuple(replace(layer, queries=layer.queries[list(steps)]) for layer in chosen))

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors by name for ``Capture.tensors`` (contiguous, as safetensors needs them)."""
        return {PREFIX + layer.name: layer.queries.contiguous() for layer in self.layers}

    def layout(self) -> dict[str, Any]:
        """JSON-serialisable description for ``CaptureInfo.layout``; merge it with whatever else the backend records."""
        return {
            LAYOUT_KEY: [
                {"name": y.name, "heads": y.heads, "height": y.height, "width": y.width, "scale": y.scale}
                for y in self.layers
            ]
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], layout: Mapping[str, Any]) -> QueryBundle:
        """Inverse of :meth:`to_tensors` and :meth:`layout`; other tensors of the capture are left alone.

        Raises:
            BackendError: the layout describes no queries, or a tensor is missing or has another shape.
        """
        entries = layout.get(LAYOUT_KEY)
        if not entries:
            raise BackendError("The capture holds no queries; read the image again with Needs(queries=True).")
        layers = []
        for entry in entries:
            tensor = tensors.get(PREFIX + str(entry["name"]))
            if tensor is None:
                raise BackendError(f"The capture lacks the queries of layer {entry['name']!r}; read the image again.")
            layers.append(
                LayerQueries(
                    name=str(entry["name"]),
                    heads=int(entry["heads"]),
                    height=int(entry["height"]),
                    width=int(entry["width"]),
                    scale=float(entry["scale"]),
                    queries=tensor,
                )
            )
        return cls(tuple(layers))
