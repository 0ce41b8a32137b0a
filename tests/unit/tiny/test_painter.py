"""Learning to paint: what is held still, and that it is held to what reading uses."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.diffusion.tiny.training import warm
from backends.diffusion.tiny.training.batches import Batch
from backends.diffusion.tiny.training.export import newest_checkpoint, trained_models
from backends.diffusion.tiny.training.grounding import Grounding
from backends.diffusion.tiny.training.painter import Holding, Painter
from backends.diffusion.tiny.training.pool import NOTHING
from backends.diffusion.tiny.training.sources import RUN_VARIABLE

CELLS = 8


@pytest.fixture
def net() -> Grounding:
    torch.manual_seed(0)
    return Grounding()


def scenes(count: int = 2) -> Batch:
    masks, concepts = torch.zeros(count, 4, CELLS, CELLS), np.full((count, 4), NOTHING, np.int16)
    return Batch(torch.randn(count, 16, CELLS, CELLS), masks, concepts, torch.zeros(count, dtype=torch.bool))


def hold(net: Grounding) -> Holding:
    return Holding(net, copy.deepcopy(net), torch.randn(1, 32, 256), np.random.default_rng(0))


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


def test_a_resumed_run_is_held_to_what_it_began_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["warm"])
    warm.main()
    first = Painter(0, 1, "cpu", 1e-3)
    with torch.no_grad():
        first.net.unet.conv_in.weight.add_(1)
    first.average = [p.detach().clone() for p in first.parameters]
    first.step, first.minutes = 7, 1.5
    first.save()
    again = Painter(0, 1, "cpu", 1e-3)
    again.resume()
    assert (again.step, again.minutes) == (7, 1.5)
    begun = first.before.unet.conv_in.weight
    assert torch.equal(again.net.unet.conv_in.weight, begun + 1) and torch.equal(
        again.before.unet.conv_in.weight, begun
    )
    exported = newest_checkpoint()["average"]
    assert torch.equal(exported["net.unet.conv_in.weight"], begun + 1)
    assert torch.equal(exported["text.final_layer_norm.weight"], first.base["average"]["text.final_layer_norm.weight"])
    trained_models(newest_checkpoint())


def test_words_and_their_keys_do_not_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["warm"])
    warm.main()
    painter = Painter(0, 1, "cpu", 1e-3)
    moved = {id(p) for p in painter.parameters}
    assert not any(id(layer.to_k.weight) in moved for layer in painter.net.layers)
    assert not any(id(p) in moved for p in painter.text.parameters())
    assert id(painter.net.layers[0].to_v.weight) in moved
