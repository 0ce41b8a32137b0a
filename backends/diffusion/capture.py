"""Records what a UNet pass computes anyway: queries of cross-attention (Eq. 1, 3) and the self-attention pixels receive (Eq. 8).

The recorder listens to the output of each layer's own ``to_q`` (and ``to_k`` of self-attention) instead of replacing
attention processors.  Nothing is computed twice, whatever processor is set (scaled dot product, sliced, a user's own)
stays set, and the image is the same bit for bit with and without recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from backends.attention.queries import LayerQueries, QueryBundle
from backends.attention.self_attention import ReceivedMaps, received_attention
from backends.contract import BackendError, Needs
from backends.diffusion.key_projections import LayerPlace, layer_names

CONDITIONAL, UNCONDITIONAL = "conditional", "unconditional"


@dataclass(slots=True)
class _Mean:
    """Running mean, so that steps recorded together need no more memory than one."""

    total: torch.Tensor
    count: int = 1

    def add(self, value: torch.Tensor) -> None:
        self.total += value
        self.count += 1

    def value(self) -> torch.Tensor:
        return self.total / self.count


@dataclass(slots=True)
class _Layer:
    """A cross-attention layer while it is recorded: its finished groups of steps and the one under way."""

    grid: tuple[int, int]
    heads: int
    scale: float
    groups: list[torch.Tensor] = field(default_factory=list)
    open: _Mean | None = None


class Recorder:
    """Records UNet passes inside a ``with`` block; on leaving it the UNet is as it was.

    Args:
        unet: a ``UNet2DConditionModel``.
        needs: what to record.
        latent_size: (height, width) of the latents.
        half: ``"conditional"`` or ``"unconditional"``: the half of a guided batch that is kept.  diffusers' pipelines put
            the unconditional (negative prompt's) half first.
        guided: whether batches consist of both halves.
        dtype: of the recorded queries.
        group_of: step index -> index of the group whose mean is kept (non-decreasing); ``None`` = each step alone.

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
        dtype: torch.dtype = torch.float16,
        group_of: Callable[[int], int] | None = None,
    ) -> None:
        if half not in (CONDITIONAL, UNCONDITIONAL):
            raise BackendError(f"cfg_half is {half!r}; allowed are {CONDITIONAL!r} and {UNCONDITIONAL!r}.")
        if half == UNCONDITIONAL and not guided:
            raise BackendError("A pass without guidance has no unconditional half; ask for the conditional one.")
        self._unet = unet
        self._needs = needs
        self._half = half
        self._guided = guided
        self._dtype = dtype
        self._group_of = group_of
        self._blocks = len(unet.config.block_out_channels)
        self._grids = [_halved(latent_size, level) for level in range(self._blocks)]
        self._layers: dict[str, _Layer] = {}
        self._received: dict[int, torch.Tensor] = {}
        self._handles: list[Any] = []
        self._pass_queries: dict[str, torch.Tensor] = {}
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

    def bundle(self) -> QueryBundle:
        """The recorded queries, layers in the order the UNet runs them."""
        self._close_groups()
        return QueryBundle(
            tuple(
                LayerQueries(name, y.heads, *y.grid, y.scale, torch.stack(y.groups)) for name, y in self._layers.items()
            )
        )

    def received(self) -> ReceivedMaps:
        """Attention received by each pixel (Eq. 8): sums over heads, layers and steps at each factor asked for."""
        return ReceivedMaps({f: total.reshape(self._grids[_level(f)]) for f, total in self._received.items()})

    def _install(self) -> None:
        modules = dict(self._unet.named_modules())
        if self._needs.queries:
            for name in layer_names(modules):
                self._listen_cross(name, modules[name])
        for factor in self._needs.self_attention:
            self._listen_self(factor, modules)
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

        def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            self._pass_queries[name] = self._heads(name, output, attention.heads, grid)

        self._handles.append(attention.to_q.register_forward_hook(keep))

    def _listen_self(self, factor: int, modules: dict[str, Any]) -> None:
        if factor < 1 or factor & (factor - 1) or _level(factor) >= self._blocks:
            allowed = ", ".join(str(1 << level) for level in range(self._blocks))
            raise BackendError(f"Self-attention at factor {factor} was asked for; this UNet works at {allowed}.")
        grid = self._grids[_level(factor)]
        names = [n for n in layer_names(modules) if self._grid_of(n) == grid]
        if not names:
            raise BackendError(f"This UNet has no attention at down-sampling factor {factor}.")
        for cross in names:
            name = cross.removesuffix("attn2") + "attn1"
            self._listen_pair(name, modules[name], factor, grid)

    def _listen_pair(self, name: str, attention: Any, factor: int, grid: tuple[int, int]) -> None:
        """Queries and keys of a self-attention layer; the probabilities are formed in blocks once both are there."""
        _refuse_unknown(name, attention)
        waiting: list[torch.Tensor] = []

        def keep_query(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            waiting[:] = [self._half_of(name, output, attention.heads, grid)]

        def keep_key(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            if not waiting:
                raise BackendError(
                    f"Attention layer {name} computed its keys before its queries; it cannot be recorded."
                )
            keys = self._half_of(name, output, attention.heads, grid)
            # In blocks: 4096 x 4096 x heads never exist at once.
            received = received_attention(waiting.pop(), keys, keys.shape[-1] ** -0.5).cpu()
            self._received[factor] = self._received[factor] + received if factor in self._received else received

        self._handles.append(attention.to_q.register_forward_hook(keep_query))
        self._handles.append(attention.to_k.register_forward_hook(keep_key))

    def _grid_of(self, name: str) -> tuple[int, int]:
        place = LayerPlace.parse(name)
        if place is None:
            raise BackendError(f"Layer {name} is not in the down or up blocks.")
        return self._grids[place.level(self._blocks)]

    def _half_of(self, name: str, output: torch.Tensor, heads: int, grid: tuple[int, int]) -> torch.Tensor:
        """(heads, pixels, d_head) of the chosen half, a view of the layer's own (batch, pixels, channels) output."""
        batch, pixels, channels = output.shape[0], output.shape[-2], output.shape[-1]
        expected = 2 if self._guided else 1
        if batch != expected:
            raise BackendError(f"A batch of {batch} was run while recording; {expected} was announced.")
        if pixels != grid[0] * grid[1]:
            raise BackendError(f"Layer {name} has {pixels} pixels, not {grid[0]} x {grid[1]}; its grid is unknown.")
        row = batch - 1 if self._half == CONDITIONAL else 0
        return output[row].detach().reshape(pixels, heads, channels // heads).transpose(0, 1)

    def _heads(self, name: str, output: torch.Tensor, heads: int, grid: tuple[int, int]) -> torch.Tensor:
        # Converted at once, so the host holds recorded steps only, never a step in full precision beside them.
        dtype = torch.float32 if self._group_of is not None else self._dtype
        # A copy in any case: a view would keep the whole batch alive.
        half = self._half_of(name, output, heads, grid).clone(memory_format=torch.contiguous_format)
        return half.to(device="cpu", dtype=dtype)

    def _end_of_pass(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        missing = [name for name in self._layers if name not in self._pass_queries]
        if missing:
            raise BackendError(
                f"Attention layer {missing[0]} did not run its own to_q; its queries cannot be recorded."
            )
        index = len(self.timesteps)
        starts_group = self._group_of is None or index == 0 or self._group_of(index) != self._group_of(index - 1)
        if starts_group:
            self._close_groups()
        for name, layer in self._layers.items():
            queries = self._pass_queries.pop(name)
            if layer.open is None:
                layer.open = _Mean(queries)
            else:
                layer.open.add(queries)
        self.timesteps.append(int(timestep))

    def _close_groups(self) -> None:
        for layer in self._layers.values():
            if layer.open is not None:
                mean = layer.open.total if layer.open.count == 1 else layer.open.value()
                layer.groups.append(mean.to(self._dtype))
                layer.open = None


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


def _level(factor: int) -> int:
    """Halvings of a down-sampling factor: 1 -> 0, 2 -> 1, 4 -> 2."""
    return factor.bit_length() - 1
