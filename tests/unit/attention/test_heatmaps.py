from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.attention import heatmaps, token_sums
from backends.attention.heatmaps import SUM, Aggregation, class_maps, heat_maps, layer_heat_maps
from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle
from backends.contract import BackendError, TokenSet


def plain(bundle, projections, x: torch.Tensor) -> torch.Tensor:
    """Eq. 5 word for word in float64, nothing streamed or folded; means instead of sums."""
    maps = []
    for layer in bundle.layers:
        q = layer.queries.double()
        k = (x.double() @ projections[layer.name].weight.double().T).view(len(x), layer.heads, -1)
        attention = (torch.einsum("thpd,nhd->thpn", q, k) * layer.scale).softmax(-1)
        grid = attention.permute(0, 1, 3, 2).reshape(-1, len(x), layer.height, layer.width)
        maps.append(F.interpolate(grid, size=bundle.size, mode="bilinear", align_corners=False).mean(0))
    return torch.stack(maps).mean(0)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_equation_5(make_bundle, projections, embeddings, n) -> None:
    bundle, x = make_bundle(), embeddings(n)
    found = heat_maps(bundle, projections, x)
    assert found.shape == (n, 8, 12) and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), plain(bundle, projections, x), rtol=0, atol=1e-6)
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    torch.testing.assert_close(found.sum(0), torch.ones(8, 12), rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    steps=st.integers(1, 3),
    heads=st.integers(1, 3),
    sizes=st.lists(st.integers(2, 5), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_all_classes_together_equal_one_by_one(height, width, steps, heads, sizes, seed) -> None:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    bundle = QueryBundle(
        (
            LayerQueries("a", heads, height, width, 0.5, randn(steps, heads, height * width, 4)),
            LayerQueries("b", heads, 2, 3, 0.5, randn(steps, heads, 6, 4)),
        )
    )
    projections = {n: KeyProjection(n, randn(heads * 4, 5), heads, 0.5) for n in "ab"}
    queries = [(TokenSet(randn(n, 5), (n - 1,)), TokenSet(randn(n + 1, 5), (1, n))) for n in sizes]
    together = class_maps(bundle, projections, queries)
    alone = torch.cat([class_maps(bundle, projections, [q]) for q in queries])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert together.shape == (len(sizes), *bundle.size)
    assert float(together.min()) >= 0 and float(together.max()) <= 1 + 1e-6


def test_a_class_is_the_mean_over_sets_and_columns(make_bundle, projections, embeddings) -> None:
    bundle, a, b = make_bundle(), embeddings(4, 1), embeddings(2, 2)
    maps_a, maps_b = heat_maps(bundle, projections, a), heat_maps(bundle, projections, b)
    found = class_maps(bundle, projections, [(TokenSet(a, (1, 3)), TokenSet(b, (1,)))])[0]
    torch.testing.assert_close(found, ((maps_a[1] + maps_a[3]) / 2 + maps_b[1]) / 2, rtol=0, atol=1e-6)


def test_two_tokens_take_the_sigmoid_and_equal_the_softmax(make_bundle, projections, embeddings, monkeypatch) -> None:
    bundle, x = make_bundle(), embeddings(2)
    fast = heat_maps(bundle, projections, x)

    def softmax(layers, deltas, mix):  # of the logits 0 and their difference
        return token_sums.softmax_sums(layers, [torch.stack([torch.zeros_like(d), d], -1) for d in deltas], mix)

    monkeypatch.setattr(heatmaps, "pair_sums", softmax)
    torch.testing.assert_close(fast, heat_maps(bundle, projections, x), rtol=0, atol=1e-6)


def test_the_order_of_steps_does_not_matter(make_bundle, projections, embeddings) -> None:
    bundle = make_bundle(steps=4)
    mixed = bundle.select(steps=[2, 0, 3, 1])
    for n in (2, 5):
        a, b = (heat_maps(q, projections, embeddings(n)) for q in (bundle, mixed))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_width_and_height_are_not_swapped(projections, embeddings) -> None:
    """One pixel of a 2 x 6 grid stands out; it must be found at its place."""
    x = embeddings(2)
    direction = projections["down"].weight.view(2, 8, -1) @ (x[1] - x[0])
    queries = torch.zeros(1, 2, 12, 8)
    queries[0, :, 1 * 6 + 4] = 10 * direction
    found = heat_maps(QueryBundle((LayerQueries("down", 2, 2, 6, 8**-0.5, queries),)), projections, x)[1]
    assert found.shape == (2, 6)
    assert divmod(int(found.argmax()), 6) == (1, 4)


def test_sum_and_mean_differ_by_the_counts(make_bundle, projections, embeddings) -> None:
    layer = QueryBundle(make_bundle(steps=3).layers[:1])
    x = embeddings(3)
    torch.testing.assert_close(
        heat_maps(layer, projections, x, aggregation=SUM), heat_maps(layer, projections, x) * 3 * 2
    )
    steps = heat_maps(layer, projections, x, aggregation=Aggregation("sum", "mean", "mean"))
    torch.testing.assert_close(steps, heat_maps(layer, projections, x) * 3)


def test_layers_at_their_own_size(make_bundle, projections, embeddings) -> None:
    found = layer_heat_maps(make_bundle(), projections, embeddings(2))
    assert {n: tuple(m.shape) for n, m in found.items()} == {
        "down": (2, 8, 12),
        "middle": (2, 4, 6),
        "up": (2, 8, 12),
    }


def test_blocks_of_sets_change_nothing(make_bundle, projections, embeddings, monkeypatch) -> None:
    bundle = make_bundle()
    queries = [(TokenSet(embeddings(n, n * 7 + i), (1,)),) for i in range(4) for n in (2, 3)]
    whole = class_maps(bundle, projections, queries)
    monkeypatch.setattr(token_sums, "_MOST", 1)
    monkeypatch.setattr(token_sums, "_PAIRS", 1)
    torch.testing.assert_close(class_maps(bundle, projections, queries), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("steps", [1, 3])
def test_gradients(make_bundle, projections, embeddings, n, steps) -> None:
    """Analytic (two tokens) and recomputed (more) gradients against finite differences, in float64."""
    bundle = make_bundle(height=2, width=4, steps=steps)
    bundle = QueryBundle(bundle.layers[:2])
    x = embeddings(n).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda y: heat_maps(bundle, projections, y), (x,))
    assert torch.autograd.gradcheck(lambda y: class_maps(bundle, projections, [(TokenSet(y, (1,)),)]), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_queries(make_bundle, projections, embeddings, dtype) -> None:
    bundle = make_bundle().to(dtype=dtype)
    for n in (2, 5):
        x = embeddings(n).requires_grad_(True)
        found = heat_maps(bundle, projections, x)
        exact = plain(bundle, projections, x.detach())
        torch.testing.assert_close(found.detach().double(), exact, rtol=0, atol=1e-6)
        found[1].mean().backward()
        assert x.grad is not None and float(x.grad.abs().max()) > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_embeddings_that_are_no_numbers_are_refused(make_bundle, projections, embeddings, bad) -> None:
    x = embeddings(3)
    x[2, 0] = bad
    with pytest.raises(BackendError, match="NaN or infinite"):
        heat_maps(make_bundle(), projections, x)
    with pytest.raises(BackendError, match="NaN or infinite"):
        class_maps(make_bundle(), projections, [(TokenSet(x, (1,)),)])


def test_wrong_input_is_named(make_bundle, projections, embeddings) -> None:
    bundle = make_bundle()
    with pytest.raises(BackendError, match="13 wide; this model's are 12"):
        heat_maps(bundle, projections, torch.zeros(2, 13))
    with pytest.raises(BackendError, match="n >= 2"):
        heat_maps(bundle, projections, torch.zeros(1, 12))
    with pytest.raises(BackendError, match="Columns"):
        class_maps(bundle, projections, [(TokenSet(embeddings(2), (2,)),)])
    with pytest.raises(BackendError, match="Class 1 has no token set"):
        class_maps(bundle, projections, [(TokenSet(embeddings(2), (1,)),), ()])
    with pytest.raises(BackendError, match="'down'"):
        heat_maps(bundle, {}, embeddings(2))
    other = {**projections, "down": KeyProjection("down", torch.zeros(16, 12), 4, 0.5)}
    with pytest.raises(BackendError, match="another model"):
        heat_maps(bundle, other, embeddings(2))


def test_no_classes_give_no_maps(make_bundle, projections) -> None:
    assert class_maps(make_bundle(), projections, []).shape == (0, 8, 12)
