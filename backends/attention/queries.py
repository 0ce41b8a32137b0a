"""Pixel queries and key projections: the two halves of Eq. 3-5 as plain tensors (paper, sections 3.1-3.2).

A capture of the queries keeps, for each cross-attention layer, Q of every recorded step and head.  (height, width) travel
with each layer because the number of pixels alone does not tell a 16 x 24 grid from a 24 x 16 one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from backends.attention import coded
from backends.attention.presets import Preset
from backends.attention.stored import StoredQueries, join_steps, pack_step
from backends.contract import BackendError

#: Prefix of the tensors' names in ``Capture.tensors``, and the key of their description in ``CaptureInfo.layout``.
PREFIX = "queries."
LAYOUT_KEY = "queries"


@dataclass(frozen=True, slots=True)
class LayerQueries:
    """Queries of one cross-attention layer (Eq. 1) as the model computes them.

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

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def device(self) -> torch.device:
        return self.queries.device

    def nbytes(self) -> int:
        return self.queries.numel() * self.queries.element_size()

    def weights(self) -> tuple[float, ...]:
        """Of each step in a mean over steps: all equal."""
        return (1.0,) * self.steps

    def plain_steps(self, dtype: torch.dtype = torch.float32) -> Iterator[torch.Tensor]:
        """(heads, pixels, d_head) of each step in turn."""
        for step in self.queries:
            yield step.to(dtype)

    def plain(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(steps, heads, pixels, d_head)."""
        return self.queries.to(dtype)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LayerQueries:
        """The same on another device or in another floating dtype."""
        return replace(self, queries=self.queries.to(device=device or self.device, dtype=dtype))

    def at_steps(self, steps: Sequence[int]) -> LayerQueries:
        """Only these steps."""
        return replace(self, queries=self.queries[list(steps)])

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors by name, contiguous as safetensors needs them."""
        return {prefix: self.queries.contiguous()}

    def describe(self) -> dict[str, Any]:
        """JSON-serialisable description of the tensors."""
        return {
            "name": self.name,
            "heads": self.heads,
            "height": self.height,
            "width": self.width,
            "scale": self.scale,
        }

    def stored(self, preset: Preset) -> StoredQueries:
        """As ``preset`` keeps them: neighbouring steps averaged into its groups, in its dtype."""
        groups = [preset.group_of(k, self.steps) for k in range(self.steps)]
        members = [[k for k, g in enumerate(groups) if g == group] for group in range(groups[-1] + 1)]
        dtype = preset.dtype_of(len(members))
        carry = torch.zeros(self.queries.shape[1:], device=self.device) if dtype == torch.int8 else None
        steps = [
            pack_step(self.queries[m[0]] if len(m) == 1 else self.queries[m].float().mean(0), dtype, carry)
            for m in members
        ]
        return join_steps(self.name, (self.height, self.width), self.scale, steps, [len(m) for m in members])


#: A layer's queries in either form.
Layer = LayerQueries | StoredQueries


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
        layers: in recording order, names unique, each as computed or as stored.
    """

    layers: tuple[Layer, ...]

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
        """Kept steps (of the first layer; the built-in readers keep the same number in all layers)."""
        return self.layers[0].steps

    @property
    def device(self) -> torch.device:
        return self.layers[0].device

    def nbytes(self) -> int:
        return sum(layer.nbytes() for layer in self.layers)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> QueryBundle:
        """The same queries on another device or in a floating dtype; shares memory where nothing changes."""
        return QueryBundle(tuple(layer.to(device, dtype) for layer in self.layers))

    def blocks(self) -> list[StoredQueries]:
        """Every layer in the stored form that passes read; computed layers are copied into it in their own dtype."""
        return [y.stored(Preset("as-is", y.queries.dtype)) if isinstance(y, LayerQueries) else y for y in self.layers]

    def stored(self, preset: Preset) -> QueryBundle:
        """Every computed layer as ``preset`` keeps it; layers that are stored already stay as they are."""
        return QueryBundle(tuple(y.stored(preset) if isinstance(y, LayerQueries) else y for y in self.layers))

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
        return QueryBundle(tuple(layer.at_steps(steps) for layer in chosen))

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors by name for ``Capture.tensors`` (contiguous, as safetensors needs them)."""
        found: dict[str, torch.Tensor] = {}
        for layer in self.layers:
            found.update(layer.tensors(PREFIX + layer.name))
        return found

    def layout(self) -> dict[str, Any]:
        """JSON-serialisable description for ``CaptureInfo.layout``; merge it with whatever else the backend records."""
        return {LAYOUT_KEY: [layer.describe() for layer in self.layers]}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], layout: Mapping[str, Any]) -> QueryBundle:
        """Inverse of :meth:`to_tensors` and :meth:`layout`; other tensors of the capture are left alone.

        Uncoded tensors are taken as they are, so memory-mapped ones stay mapped.

        Raises:
            BackendError: the layout describes no queries, or a tensor is missing or has another shape.
        """
        entries = layout.get(LAYOUT_KEY)
        if not entries:
            raise BackendError("The capture holds no queries; read the image again with Needs(queries=True).")
        return cls(tuple(_layer_from(tensors, entry) for entry in entries))


def kept(bundle: QueryBundle, preset: Preset) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and layout of a bundle as ``preset`` stores it; layers that are stored already keep their steps."""
    stored = bundle.stored(preset)
    if preset.bits is None:
        return stored.to_tensors(), stored.layout()
    tensors, entries = coded.encode(stored.blocks(), preset.bits)
    return {PREFIX + name: data for name, data in tensors.items()}, {LAYOUT_KEY: entries}


def _layer_from(tensors: Mapping[str, torch.Tensor], entry: Mapping[str, Any]) -> Layer:
    """One layer of a capture in the form its entry names."""
    key = PREFIX + str(entry["name"])
    tensor = tensors.get(key)
    if tensor is None:
        raise BackendError(f"The capture lacks the queries of layer {entry['name']!r}; read the image again.")
    common: dict[str, Any] = {
        "name": str(entry["name"]),
        "heads": int(entry["heads"]),
        "height": int(entry["height"]),
        "width": int(entry["width"]),
        "scale": float(entry["scale"]),
    }
    form = entry.get("form", "plain")
    if form == "blocks":
        counts = tuple(int(count) for count in entry["counts"])
        return StoredQueries(**common, blocks=tensor, scales=tensors.get(key + ".scales"), counts=counts)
    if form == "coded":
        return coded.decode(tensor, entry)
    if form != "plain":
        raise BackendError(f"The capture keeps its queries in form {form!r}, which this version cannot read.")
    return LayerQueries(**common, queries=tensor)
