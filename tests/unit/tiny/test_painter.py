"""Learning to paint: what is held still, and that it is held to what reading uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends.diffusion.tiny.training.batches import Batch
from backends.diffusion.tiny.training.grounding import Grounding
from backends.diffusion.tiny.training.painter import Holding
from backends.diffusion.tiny.training.pool import NOTHING

CELLS = 8


@pytest.fixture
def net() -> Grounding:
    torch.manual_seed(0)
    return Grounding()


def scenes(count: int = 2) -> Batch:
    masks, concepts = torch.zeros(count, 4, CELLS, CELLS), np.full((count, 4), NOTHING, np.int16)
    return Batch(torch.randn(count, 16, CELLS, CELLS), masks, concepts, torch.zeros(count, dtype=torch.bool))


def hold(net: Grounding) -> Holding:
    return Holding(net, torch.randn(1, 32, 256), np.random.default_rng(0))


def error(holding: Holding, batch: Batch | None = None) -> float:
    return float(holding(batch or scenes()).detach())


def test_an_unchanged_unet_reads_as_before(net: Grounding) -> None:
    assert error(hold(net)) < 1e-6


def test_what_reading_uses_is_watched_and_nothing_else(net: Grounding) -> None:
    holding = hold(net)
    with torch.no_grad():
        net.unet.conv_out.weight.zero_()
    assert error(holding) < 1e-6  # nothing is read behind the last layer
    with torch.no_grad():
        net.layers[-1].to_q.weight.mul_(-1)
    assert error(holding) > 0.3


@pytest.mark.parametrize("part", ["to_q", "to_k"])
def test_the_self_attention_that_spreads_maps_is_watched(net: Grounding, part: str) -> None:
    holding = hold(net)
    with torch.no_grad():
        last = net.unet.up_blocks[-1].attentions[-1].transformer_blocks[-1].attn1
        getattr(last, part).weight.mul_(-1)
    assert error(holding) > 0.3


def test_holding_pulls_back(net: Grounding) -> None:
    holding = hold(net)
    with torch.no_grad():
        for layer in net.layers:
            layer.to_q.weight.add_(0.3 * torch.randn_like(layer.to_q.weight) * layer.to_q.weight.std())
    moved = [layer.to_q.weight for layer in net.layers]
    optimizer = torch.optim.Adam(moved, 1e-3)
    torch.manual_seed(1)
    batch = scenes()
    first = error(holding, batch)
    for _ in range(12):
        optimizer.zero_grad()
        holding(batch).backward()
        optimizer.step()
    assert error(holding, batch) < 0.7 * first
    assert not any(p.grad is not None for p in holding.before.parameters())
