"""Maps spread by self-attention."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from backends.attention import spread
from backends.attention.spread import Affinity, holds_affinity, without_affinity
from backends.contract import BackendError, Capture, CaptureInfo


def affinity(seed: int = 0, grid: tuple[int, int] = (3, 5), scale: float = 1.0) -> Affinity:
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (torch.randn(2, 3, grid[0] * grid[1], 4, generator=generator) * scale for _ in range(2))
    return Affinity(queries, keys, grid)


def test_it_is_the_mean_over_layers_and_heads_of_the_attention_times_the_map() -> None:
    one, maps = affinity(), torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1))
    attention = (torch.einsum("lhid,lhjd->lhij", one.queries, one.keys) / 4**0.5).softmax(-1).mean((0, 1))
    expected = torch.einsum("ij,cj->ci", attention, maps.flatten(1)).reshape(2, 3, 5)
    torch.testing.assert_close(one.spread(maps), expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0, 5), size=st.sampled_from([(3, 5), (6, 10), (2, 4)]))
def test_values_stay_within_the_maps_range_and_constant_maps_stay(
    seed: int, scale: float, size: tuple[int, int]
) -> None:
    one, maps = affinity(seed, scale=scale), torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))
    found = one.spread(maps)
    assert found.shape == maps.shape
    assert bool((found.amin((1, 2)) >= maps.amin((1, 2)) - 1e-5).all())
    assert bool((found.amax((1, 2)) <= maps.amax((1, 2)) + 1e-5).all())
    torch.testing.assert_close(one.spread(torch.full((1, 3, 5), 0.25)), torch.full((1, 3, 5), 0.25))


def test_blocks_of_rows_change_nothing_and_no_class_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    one, maps = affinity(), torch.rand(2, 3, 5)
    whole = one.spread(maps)
    monkeypatch.setattr(spread, "_MOST", 200)
    torch.testing.assert_close(one.spread(maps), whole)
    assert one.spread(torch.zeros(0, 3, 5)).shape == (0, 3, 5)


def test_a_part_of_an_object_fills_the_object() -> None:
    """Pixels of one object attend to each other: what a word lights up in one of them comes to all."""
    kind = torch.zeros(1, 1, 16, 2)
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[1:3, 1:4] = True
    kind[0, 0, :, 0], kind[0, 0, :, 1] = inside.flatten().float(), (~inside).flatten().float()
    one = Affinity(kind * 12, kind, (4, 4))
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 1] = 1.0
    found = one.spread(maps)[0]
    assert float(found[inside].min()) > 10 * float(found[~inside].max())
    assert float(found[inside].std()) < 1e-6


def test_round_trip_and_refusals() -> None:
    one = affinity()
    layout = json.loads(json.dumps(one.layout()))
    back = Affinity.from_tensors(load(save(one.to_tensors())), layout)
    assert torch.equal(back.queries, one.queries) and back.grid == one.grid
    with pytest.raises(BackendError, match="lacks its self-attention"):
        Affinity.from_tensors({}, layout)
    with pytest.raises(BackendError, match="do not fit the grid 4 x 5"):
        Affinity.from_tensors(one.to_tensors(), {"affinity": [4, 5]})


def test_without_it_a_capture_keeps_the_rest() -> None:
    one = affinity()
    info = CaptureInfo("received", (24, 40), (3, 5), (50,), layout={**one.layout(), "preset": "exact"})
    capture = Capture(info, {**one.to_tensors(), "queries.a": torch.zeros(1)})
    plain = without_affinity(capture)
    assert holds_affinity(capture) and not holds_affinity(plain)
    assert plain.info.layout == {"preset": "exact"} and list(plain.tensors) == ["queries.a"]
