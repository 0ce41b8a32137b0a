"""The UNet with its cross-attention queries kept, and attribution maps as differentiable functions of text tokens.

Shapes: B scenes, h heads, N pixels of a layer, d head width, E text width, W words. Maps are (B, W, G, G), G cells a
side of the latents (16 at 128 pixels).
Layers are those of the down and up blocks; the middle block is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from .autoencoder import LATENT_CHANNELS
from .pool import GRID
from .text import WIDTH


class KeepQueries:
    """Attention processor that leaves its queries (B, h, N, d) in ``queries``.

    On a CPU written out as two matrix products: in bf16 the fused kernel's backward pass is several times slower there.
    """

    queries: Tensor

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        batch, pixels, channels = hidden_states.shape
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        width = channels // attn.heads

        def split(x: Tensor) -> Tensor:
            return x.view(batch, -1, attn.heads, width).transpose(1, 2).reshape(batch * attn.heads, -1, width)

        query, key, value = split(attn.to_q(hidden_states)), split(attn.to_k(context)), split(attn.to_v(context))
        self.queries = query.view(batch, attn.heads, pixels, width)
        if query.is_cuda:
            heads = [x.view(batch, attn.heads, -1, width) for x in (query, key, value)]
            out = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        else:
            weights = torch.softmax(torch.bmm(query * width**-0.5, key.transpose(1, 2)), -1)
            out = torch.bmm(weights, value).view(batch, attn.heads, pixels, width)
        return attn.to_out[0](out.transpose(1, 2).reshape(batch, pixels, channels))


def make_unet() -> UNet2DConditionModel:
    """Untrained UNet, 4.4 M parameters; cross-attention at 8 x 8 (down) and 8 x 8, 16 x 16 (up)."""
    return UNet2DConditionModel(
        sample_size=GRID,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


class Grounding(nn.Module):
    """UNet plus the few scalars that only training and token recipes use.

    ``log_steps``: sizes of the normalised gradient steps that make a token; ``log_gain``: size of the summed logit
    in the folded maps.
    """

    def __init__(self, unet: UNet2DConditionModel | None = None) -> None:
        super().__init__()
        self.unet = unet or make_unet()
        self.log_steps = nn.Parameter(torch.tensor([math.log(6.0), math.log(3.0)]))
        self.log_gain = nn.Parameter(torch.tensor(math.log(5.0)))
        names = [n for n, _ in self.unet.named_modules() if n.endswith("attn2")]
        chosen = [n for n in names if n.startswith("down")] + [n for n in names if n.startswith("up")]
        self.layers = [self.unet.get_submodule(n) for n in chosen]
        self.keepers = [KeepQueries() for _ in chosen]
        self.unet.set_attn_processor(KeepQueries())  # self-attention and the middle block: for speed, never read
        for layer, keeper in zip(self.layers, self.keepers, strict=True):
            layer.set_processor(keeper)

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Prediction, and the queries of each layer (float32)."""
        out = self.unet(latents, timesteps, encoder_hidden_states=condition).sample
        return out, [keeper.queries.float() for keeper in self.keepers]

    def logits(self, queries: list[Tensor], tokens: Tensor) -> list[Tensor]:
        """Scaled scores (B, h, N, W) per layer of tokens (W, E) or, one set a scene, (B, W, E)."""
        result = []
        for q, layer in zip(queries, self.layers, strict=True):
            key = F.linear(tokens, layer.to_k.weight)
            key = key.view(*key.shape[:-1], layer.heads, q.shape[-1])
            formula = "bhnd,whd->bhnw" if tokens.dim() == 2 else "bhnd,bwhd->bhnw"
            result.append(torch.einsum(formula, q, key) * q.shape[-1] ** -0.5)
        return result

    def fold(self, scores: list[Tensor]) -> Tensor:
        """Summed logit of all heads and layers times the gain, as a map."""
        return self.log_gain.exp() * mean_of(to_grid([s.mean(1) for s in scores]))

    def pair_maps(self, queries: list[Tensor], tokens: Tensor, start: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Two-token maps: per head the softmax over {start, token}, averaged. Also per layer, and folded (logits)."""
        scores = self.logits(queries, tokens - start)
        layers = to_grid([torch.sigmoid(s).mean(1) for s in scores])
        return mean_of(layers), layers, self.fold(scores)


#: Runs the UNet in bf16: latents, timesteps and conditions in; prediction and queries out, float32.
Run = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]]


def run_eagerly(net: Grounding, latents: Tensor, timesteps: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The plain :data:`Run`."""
    with torch.autocast(latents.device.type, torch.bfloat16):
        out, queries = net(latents, timesteps, condition)
    return out.float(), queries


class Recorded(nn.Module):
    """A :data:`Run` that replays a CUDA graph for each shape of latents: on a GPU most of a small UNet's time is starting kernels."""

    def __init__(self, net: Grounding) -> None:
        super().__init__()
        self.net = net
        self.shapes: dict[tuple[int, ...], Callable[..., Any]] = {}

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        shape = tuple(latents.shape)
        if shape not in self.shapes:
            # copies, so that a recording does not hold on to this step's graph
            like = latents.detach().clone(), timesteps.clone(), condition.detach().clone().requires_grad_()
            self.shapes[shape] = torch.cuda.make_graphed_callables(Flat(self.net), like, allow_unused_input=True)
        out, *queries = self.shapes[shape](latents, timesteps, condition.contiguous())
        return out, list(queries)


class Flat(nn.Module):
    """The UNet as a recording needs it: tensors in, a tuple of tensors out, only its own parameters."""

    def __init__(self, net: Grounding) -> None:
        super().__init__()
        self.unet, self.keepers = net.unet, net.keepers

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(latents.device.type, torch.bfloat16, cache_enabled=False):
            out = self.unet(latents, timesteps, encoder_hidden_states=condition).sample
        return out.float(), *(keeper.queries.float() for keeper in self.keepers)


def mean_of(values: list[Tensor]) -> Tensor:
    """Mean of equal-shaped tensors."""
    return torch.stack(values).mean(0)


def to_grid(values: list[Tensor]) -> list[Tensor]:
    """(B, N, W) values of square layers as (B, W, G, G) maps of the finest layer's size."""
    finest = math.isqrt(max(v.shape[1] for v in values))
    maps = []
    for v in values:
        batch, pixels, count = v.shape
        side = math.isqrt(pixels)
        own = v.transpose(1, 2).reshape(batch, count, side, side)
        maps.append(own if side == finest else F.interpolate(own, (finest, finest), mode="bilinear"))
    return maps


def alphas_cumulative(steps: int = 1000) -> Tensor:
    """The noise schedule of Stable Diffusion (scaled linear .00085 to .012)."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, steps) ** 2, 0)


def cross_entropy(p: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of probabilities, elementwise."""
    p = p.clamp(1e-4, 1 - 1e-4)
    return -(y * p.log() + (1 - y) * (1 - p).log())
