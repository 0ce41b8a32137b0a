from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle
from backends.contract import BackendError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip_through_safetensors_and_json(make_bundle, dtype) -> None:
    bundle = make_bundle(height=6, width=10).to(dtype=dtype)
    tensors = {**load(save(bundle.to_tensors())), "something.else": torch.zeros(1)}
    layout = json.loads(json.dumps({**bundle.layout(), "other": 1}))
    back = QueryBundle.from_tensors(tensors, layout)
    assert back.size == (6, 10)
    assert [(y.name, y.heads, y.height, y.width, y.scale) for y in back.layers] == [
        (y.name, y.heads, y.height, y.width, y.scale) for y in bundle.layers
    ]
    assert all(torch.equal(a.queries, b.queries) for a, b in zip(back.layers, bundle.layers, strict=True))
    assert back.nbytes() == bundle.nbytes()


def test_a_view_can_be_stored(make_bundle) -> None:
    """Slices of larger tensors are legal queries; safetensors takes contiguous ones only."""
    layer = make_bundle(steps=4).layers[0]
    view = LayerQueries("v", layer.heads, layer.height, layer.width, layer.scale, layer.queries[::2])
    assert torch.equal(load(save(QueryBundle((view,)).to_tensors()))["queries.v"], layer.queries[::2])


def test_a_grid_that_is_not_the_pixels_is_refused() -> None:
    with pytest.raises(BackendError, match="4 x 4"):
        LayerQueries("a", 2, 4, 4, 1.0, torch.zeros(1, 2, 15, 8))


def test_integer_queries_are_refused() -> None:
    with pytest.raises(BackendError, match="int8"):
        LayerQueries("a", 2, 2, 2, 1.0, torch.zeros(1, 2, 4, 8, dtype=torch.int8))


def test_a_lost_tensor_is_named(make_bundle) -> None:
    bundle = make_bundle()
    tensors = bundle.to_tensors()
    del tensors["queries.middle"]
    with pytest.raises(BackendError, match="'middle'"):
        QueryBundle.from_tensors(tensors, bundle.layout())
    with pytest.raises(BackendError, match="holds no queries"):
        QueryBundle.from_tensors(tensors, {})


def test_select(make_bundle) -> None:
    bundle = make_bundle(steps=3)
    part = bundle.select(layers=["up"], steps=[2, 0])
    assert [y.name for y in part.layers] == ["up"]
    assert torch.equal(part.layers[0].queries, bundle.layers[2].queries[[2, 0]])
    with pytest.raises(BackendError, match="'left'"):
        bundle.select(layers=["left"])
    with pytest.raises(BackendError, match=r"0\.\.2"):
        bundle.select(steps=[3])


def test_keys_are_the_scaled_projection() -> None:
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    keys = KeyProjection("a", weight, heads=2, scale=0.5).keys(x)
    expected = (x @ weight.T).view(5, 2, 3).permute(1, 2, 0) * 0.5
    torch.testing.assert_close(keys, expected)
