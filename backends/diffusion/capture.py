"""Records what a UNet pass computes anyway: queries of cross-attention (Eq. 1, 3), the self-attention pixels receive
(Eq. 8), and hidden states of the up blocks.

The recorder listens to the output of each layer's own ``to_q`` (and ``to_k`` of self-attention) instead of replacing
attention processors.  Nothing is computed twice, whatever processor is set (scaled dot product, sliced, a user's own)
stays set, and the image is the same bit for bit with and without recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from backends.attention.queries import Layer, LayerQueries, QueryBundle
from backends.attention.self_attention import ReceivedMaps, received_attention
from backends.attention.spread import Affinity
from backends.attention.stored import join_steps
from backends.contract import BackendError, Needs
from backends.diffusion.features import FeatureMaps
from backends.diffusion.key_projections import LayerPlace, layer_names
from backends.diffusion.series import Series

CONDITIONAL, UNCONDITIONAL = "conditional", "unconditional"


@dataclass(frozen=True, slots=True)
class _Layer:
    """A cross-attention layer that is recorded."""

    grid: tuple[int, int]
    heads: int
    scale: float


class Recorder:
    """Records UNet passes inside a ``with`` block; on leaving it the UNet is as it was.

    Args:
        unet: a ``UNet2DConditionModel``.
        needs: what to record.
        latent_size: (height, width) of the latents.
        half: ``"conditional"`` or ``"unconditional"``: the half of a guided batch that is kept.  diffusers' pipelines put
            the unconditional (negative prompt's) half first.
        guided: whether batches consist of both halves.
        images: how many images each half holds; they are told apart by their number in it.
        dtype: of the recorded features, and of the queries where they are not packed.
        packed_as: dtype of the stored form queries are brought to as soon as a group of steps is complete, so that the
            host never holds more than that and one group; ``None`` = as computed.
        group_of: step index -> index of the group whose mean queries are kept (non-decreasing); ``None`` = each step alone.
        affinity: keep queries and keys of the finest self-attention of the last pass, which spread maps.

    Raises:
        BackendError: the needs cannot be met by this UNet.
    """

    def __init__(
        self,
        unet: Any,
        needs: Needs,
        latent_size: tuple[int, int],
        *,
        half: str = CONDITIONAL,
        guided: bool = False,
        images: int = 1,
        dtype: torch.dtype = torch.float16,
        packed_as: torch.dtype | None = None,
        group_of: Callable[[int], int] | None = None,
        affinity: bool = False,
    ) -> None:
        if half not in (CONDITIONAL, UNCONDITIONAL):
            raise BackendError(f"cfg_half is {half!r}; allowed are {CONDITIONAL!r} and {UNCONDITIONAL!r}.")
        if half == UNCONDITIONAL and not guided:
            raise BackendError("A pass without guidance has no unconditional half; ask for the conditional one.")
        self._unet = unet
        self._needs = needs
        self._half = half
        self._guided = guided
        self._images = images
        self._dtype = dtype
        self._packed_as = packed_as
        self._group_of = group_of
        self._blocks = len(unet.config.block_out_channels)
        self._grids = [_halved(latent_size, level) for level in range(self._blocks)]
        self._layers: dict[str, _Layer] = {}
        self._received: dict[int, torch.Tensor] = {}
        self._affinity: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = {} if affinity else None
        self._affinity_grid = (0, 0)
        self._series: dict[str, Series] = {}
        self._handles: list[Any] = []
        self._this_pass: dict[str, torch.Tensor] = {}
        self.timesteps: list[int] = []

    def __enter__(self) -> Recorder:
        try:
            self._install()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def bundle(self, image: int = 0) -> QueryBundle:
        """The recorded queries of one image, layers in the order the UNet runs them."""
        self._close_groups()
        return QueryBundle(tuple(self._layer(name, image) for name in self._layers))

    def received(self, image: int = 0) -> ReceivedMaps:
        """Attention received by each pixel (Eq. 8): sums over heads, layers and steps at each factor asked for."""
        return ReceivedMaps({f: total[image].reshape(self._grids[_level(f)]) for f, total in self._received.items()})

    def affinity(self, image: int = 0) -> Affinity:
        """Queries and keys of the finest self-attention layers, of the last pass."""
        pairs = list((self._affinity or {}).values())
        queries, keys = (torch.stack([pair[k][image] for pair in pairs]) for k in (0, 1))
        return Affinity(queries, keys, self._affinity_grid)

    def features(self, image: int = 0) -> FeatureMaps:
        """Hidden states leaving the up blocks at each factor asked for."""
        self._close_groups()
        return FeatureMaps({f: self._series[_feature(f)].of(image) for f in sorted(set(self._needs.features))})

    def _layer(self, name: str, image: int) -> Layer:
        layer, series = self._layers[name], self._series[name]
        if self._packed_as is None:
            return LayerQueries(name, layer.heads, *layer.grid, layer.scale, series.of(image))
        return join_steps(name, layer.grid, layer.scale, series.packed_of(image), series.counts)

    def _install(self) -> None:
        modules = dict(self._unet.named_modules())
        if self._needs.queries:
            for name in layer_names(modules):
                self._listen_cross(name, modules[name])
        for factor in sorted(set(self._needs.self_attention)):
            self._listen_self(factor, modules)
        for factor in sorted(set(self._needs.features)):
            self._listen_features(factor)
        if self._affinity is not None:
            self._affinity_grid = self._listen_affinity(modules, self._affinity)
        self._handles.append(self._unet.register_forward_hook(self._end_of_pass, with_kwargs=True))

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _listen_cross(self, name: str, attention: Any) -> None:
        _refuse_unknown(name, attention)
        grid = self._grid_of(name)
        inner = attention.to_q.weight.shape[0]
        self._layers[name] = _Layer(grid, attention.heads, (inner // attention.heads) ** -0.5)
        self._series[name] = Series(self._packed_as)

        def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            half = self._half_of(name, output, attention.heads, grid)
            grouped = self._group_of is not None or self._packed_as is not None
            self._this_pass[name] = _kept(half, torch.float32 if grouped else self._dtype)

        self._handles.append(attention.to_q.register_forward_hook(keep))

    def _listen_features(self, factor: int) -> None:
        """Hidden states as they leave the up block of that factor, before it enlarges them."""
        self._check_factor("Features", factor)
        block = self._unet.up_blocks[self._blocks - 1 - _level(factor)]
        last = (getattr(block, "attentions", None) or block.resnets)[-1]
        grid, name = self._grids[_level(factor)], _feature(factor)
        self._series[name] = Series()

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            states = output if isinstance(output, torch.Tensor) else output[0]
            self._check_batch(states.shape[0])
            if tuple(states.shape[-2:]) != grid:
                raise BackendError(f"The up block at factor {factor} works at {tuple(states.shape[-2:])}, not {grid}.")
            self._this_pass[name] = _kept(states[self._rows(states.shape[0])].detach(), self._dtype)

        self._handles.append(last.register_forward_hook(keep))

    def _check_factor(self, what: str, factor: int) -> None:
        if factor < 1 or factor & (factor - 1) or _level(factor) >= self._blocks:
            allowed = ", ".join(str(1 << level) for level in range(self._blocks))
            raise BackendError(f"{what} at factor {factor} was asked for; this UNet works at {allowed}.")

    def _listen_self(self, factor: int, modules: dict[str, Any]) -> None:
        self._check_factor("Self-attention", factor)
        grid = self._grids[_level(factor)]
        names = [n for n in layer_names(modules) if self._grid_of(n) == grid]
        if not names:
            raise BackendError(f"This UNet has no attention at down-sampling factor {factor}.")

        def add(queries: torch.Tensor, keys: torch.Tensor) -> None:
            # In blocks: 4096 x 4096 x heads never exist at once.
            pairs = zip(queries, keys, strict=True)
            received = torch.stack([received_attention(q, k, k.shape[-1] ** -0.5).cpu() for q, k in pairs])
            self._received[factor] = self._received[factor] + received if factor in self._received else received

        for cross in names:
            name = cross.removesuffix("attn2") + "attn1"
            self._listen_pair(name, modules[name], grid, add)

    def _listen_pair(
        self,
        name: str,
        attention: Any,
        grid: tuple[int, int],
        take: Callable[[torch.Tensor, torch.Tensor], None],
    ) -> None:
        """Hands queries and keys (images, heads, pixels, d_head) of a self-attention layer to ``take`` once both are there."""
        _refuse_unknown(name, attention)
        waiting: list[torch.Tensor] = []

        def keep_query(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            waiting[:] = [self._half_of(name, output, attention.heads, grid)]

        def keep_key(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            if not waiting:
                raise BackendError(
                    f"Attention layer {name} computed its keys before its queries; it cannot be recorded."
                )
            take(waiting.pop(), self._half_of(name, output, attention.heads, grid))

        self._handles.append(attention.to_q.register_forward_hook(keep_query))
        self._handles.append(attention.to_k.register_forward_hook(keep_key))

    def _listen_affinity(
        self, modules: dict[str, Any], into: dict[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[int, int]:
        """The finest self-attention layers, those of a pass in the place of the one before; returns their grid."""
        grids = {name: self._grid_of(name) for name in layer_names(modules)}
        finest = max(grids.values())
        for cross in (name for name, grid in grids.items() if grid == finest):
            name = cross.removesuffix("attn2") + "attn1"

            def keep(queries: torch.Tensor, keys: torch.Tensor, name: str = name) -> None:
                into[name] = _kept(queries, self._dtype), _kept(keys, self._dtype)

            self._listen_pair(name, modules[name], finest, keep)
        return finest

    def _grid_of(self, name: str) -> tuple[int, int]:
        place = LayerPlace.parse(name)
        if place is None:
            raise BackendError(f"Layer {name} is not in the down or up blocks.")
        return self._grids[place.level(self._blocks)]

    def _half_of(self, name: str, output: torch.Tensor, heads: int, grid: tuple[int, int]) -> torch.Tensor:
        """(images, heads, pixels, d_head) of the chosen half, a view of the layer's own (batch, pixels, channels) output."""
        batch, pixels, channels = output.shape[0], output.shape[-2], output.shape[-1]
        self._check_batch(batch)
        if pixels != grid[0] * grid[1]:
            raise BackendError(f"Layer {name} has {pixels} pixels, not {grid[0]} x {grid[1]}; its grid is unknown.")
        rows = output[self._rows(batch)].detach()
        return rows.reshape(self._images, pixels, heads, channels // heads).transpose(1, 2)

    def _check_batch(self, batch: int) -> None:
        expected = self._images * (2 if self._guided else 1)
        if batch != expected:
            raise BackendError(f"A batch of {batch} was run while recording; {expected} was announced.")

    def _rows(self, batch: int) -> slice:
        return slice(batch - self._images, batch) if self._half == CONDITIONAL else slice(0, self._images)

    def _end_of_pass(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        missing = [name for name in self._series if name not in self._this_pass]
        if missing:
            raise BackendError(
                f"Attention layer {missing[0]} did not run its own to_q; its queries cannot be recorded."
                if missing[0] in self._layers
                else f"The UNet did not run its up block's last layer; {missing[0]} cannot be recorded."
            )
        index = len(self.timesteps)
        starts = self._group_of is None or index == 0 or self._group_of(index) != self._group_of(index - 1)
        for name, series in self._series.items():
            # Features keep each step, whatever the queries' groups.
            if starts or name not in self._layers:
                series.close(self._dtype)
            series.add(self._this_pass.pop(name))
        self.timesteps.append(int(timestep))

    def _close_groups(self) -> None:
        for series in self._series.values():
            series.close(self._dtype)


def _kept(half: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy on the host: a view would keep the whole batch alive."""
    copy = torch.empty(half.shape, dtype=dtype, device=half.device)
    return copy.copy_(half).to("cpu")


def _halved(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Grid after ``level`` stride-2 convolutions, which round up."""
    height, width = size
    for _ in range(level):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def _refuse_unknown(name: str, attention: Any) -> None:
    """Only layers whose ``to_q`` output meets ``to_k``'s as it is can be recorded by listening to them."""
    if getattr(attention, "norm_q", None) is not None:
        raise BackendError(f"Layer {name} normalises its queries per head; recording such a UNet is not supported.")
    if getattr(attention, "fused_projections", False):
        raise BackendError(f"Layer {name} has fused projections; call unet.unfuse_qkv_projections() before recording.")


def _feature(factor: int) -> str:
    return f"features at factor {factor}"


def _level(factor: int) -> int:
    """Halvings of a down-sampling factor: 1 -> 0, 2 -> 1, 4 -> 2."""
    return factor.bit_length() - 1
