from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from backends.attention import self_attention
from backends.attention.self_attention import ReceivedMaps, normalised, received_attention, weigh
from backends.contract import BackendError


def qk(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 15, 4, generator=generator), torch.randn(2, 15, 4, generator=generator)


def test_the_sum_is_over_the_queries() -> None:
    q, k = qk()
    attention = (torch.einsum("hid,hjd->hij", q, k) * 0.5).softmax(-1)
    found = received_attention(q, k, 0.5)
    torch.testing.assert_close(found, attention.sum((0, 1)))
    assert float(found.sum()) == pytest.approx(2 * 15, rel=1e-5)


def test_it_is_not_constant() -> None:
    """Summed over the wrong axis every pixel gets exactly the number of heads."""
    found = received_attention(*qk(), 0.5)
    assert float(found.max() - found.min()) > 0.1 * float(found.mean())
    spread = normalised(found.reshape(3, 5), 0.5)
    assert float(spread.min()) == pytest.approx(0.5) and float(spread.max()) == pytest.approx(1.0)
    assert float(spread.std()) > 0.05


def test_blocks_of_rows_change_nothing(monkeypatch) -> None:
    q, k = qk()
    whole = received_attention(q, k, 0.5)
    monkeypatch.setattr(self_attention, "_MOST", 60)
    torch.testing.assert_close(received_attention(q, k, 0.5), whole)


@pytest.mark.parametrize("value", [0.0, 2.0, 1e6])
def test_a_constant_map_changes_nothing(value) -> None:
    flat = torch.full((3, 5), value)
    assert torch.equal(normalised(flat, 0.85), torch.ones(3, 5))
    noise = flat * (1 + 1e-7 * torch.rand(3, 5, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(normalised(noise, 0.85), torch.ones(3, 5))


def test_weigh_multiplies_and_resizes() -> None:
    received = torch.tensor([[0.0, 4.0]])
    maps = torch.full((2, 1, 2), 0.5)
    torch.testing.assert_close(weigh(maps, received, 0.6), torch.tensor([[0.3, 0.5]]).expand(2, 1, 2))
    larger = weigh(torch.full((1, 4, 8), 0.5), received, 0.6)
    assert larger.shape == (1, 4, 8)
    assert float(larger.min()) == pytest.approx(0.3) and float(larger.max()) == pytest.approx(0.5)
    assert torch.equal(weigh(maps, received, 1.0), maps)


def test_bad_values_are_refused() -> None:
    with pytest.raises(BackendError, match=r"alpha is 1\.5"):
        normalised(torch.rand(2, 2), 1.5)
    with pytest.raises(BackendError, match="NaN"):
        normalised(torch.tensor([[float("nan"), 1.0]]), 0.5)
    with pytest.raises(BackendError, match="heads, P, d"):
        received_attention(torch.zeros(2, 3, 4), torch.zeros(2, 4, 4), 1.0)


def test_round_trip() -> None:
    maps = ReceivedMaps({2: torch.rand(2, 3), 1: torch.rand(4, 6)})
    back = ReceivedMaps.from_tensors(load(save(maps.to_tensors())), json.loads(json.dumps(maps.layout())))
    assert torch.equal(back.finest(), maps.maps[1])
    with pytest.raises(BackendError, match="no self-attention"):
        ReceivedMaps.from_tensors({}, {})
    with pytest.raises(BackendError, match="factor 1"):
        ReceivedMaps.from_tensors({}, maps.layout())
