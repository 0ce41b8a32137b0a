from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from backends.attention.heatmaps import class_maps, heat_maps
from backends.attention.presets import PRESETS, Preset, preset_named
from backends.attention.queries import LayerQueries, QueryBundle
from backends.attention.stored import StoredQueries, pack_step
from backends.contract import DEFAULT_PRESET, BackendError, Needs, TokenSet
from ovam_labeler.settings import Settings


def test_the_setting_names_the_presets() -> None:
    assert Settings.model_fields["cache_preset"].default == DEFAULT_PRESET == Needs().preset
    assert set(Settings.model_fields["cache_preset"].annotation.__args__) == set(PRESETS)
    with pytest.raises(BackendError, match="'best'"):
        preset_named("best")


def test_needs_of_two_presets_have_two_keys() -> None:
    assert Needs(preset="exact").key() != Needs(preset="balanced").key()


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    heads=st.integers(1, 3),
    size=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int8]),
    seed=st.integers(0, 99),
)
def test_packing_loses_no_more_than_the_dtype(height, width, heads, size, dtype, seed) -> None:
    queries = torch.randn(2, heads, height * width, size, generator=torch.Generator().manual_seed(seed)) * 3
    stored = LayerQueries("a", heads, height, width, 1.0, queries).stored(Preset("any", dtype))
    error = (stored.plain() - queries).abs()
    if dtype == torch.int8:
        half = stored.scales[:, :, None] * 0.5001
        # Each step may also make up for what the one before lost, so that their sum loses half a unit and no more.
        allowed = half + torch.cat([torch.zeros_like(half[:1]), half[:-1]])
        assert bool(((stored.plain() - queries).sum(0).abs() <= half[-1] + 1e-6).all())
        assert bool((stored.scales <= queries.abs().amax(2) / 127 * 1.02).all())
    else:
        allowed = queries.abs() * {torch.float32: 0, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype] + 1e-6
    assert bool((error <= allowed).all())
    # Padding is zero: it adds nothing to a gradient and is no unset memory.
    pixels = height * width
    assert not stored.blocks.transpose(3, 4).transpose(2, 3).flatten(1, 2)[:, pixels:].any()


def test_few_steps_are_halves_and_many_are_eight_bits(make_bundle) -> None:
    exact, balanced = PRESETS["exact"], PRESETS["balanced"]
    for steps, preset, dtype, kept in (
        (1, exact, torch.float16, 1),
        (14, exact, torch.float16, 14),
        (15, exact, torch.int8, 15),
        (2, balanced, torch.float16, 2),
        (3, balanced, torch.int8, 3),
        (20, balanced, torch.int8, 5),
    ):
        layer = make_bundle(steps=steps).stored(preset).layers[0]
        assert (layer.blocks.dtype, layer.steps) == (dtype, kept)


def test_rounding_of_neighbouring_steps_cancels_in_a_map(projections, embeddings) -> None:
    """Steps that differ little: the mean over them is nearer than one step's rounding would allow."""
    draw = torch.Generator().manual_seed(1)
    base = torch.randn(1, 2, 96, 8, generator=draw) * 2
    steps = base + 0.02 * torch.randn(20, 2, 96, 8, generator=draw)
    layer, x = LayerQueries("down", 2, 8, 12, 8**-0.5, steps), embeddings(2)
    exact = heat_maps(QueryBundle((layer,)), projections, x)
    alone = [LayerQueries("down", 2, 8, 12, 8**-0.5, s[None]).stored(Preset("x", torch.int8)) for s in steps]
    rounded = torch.stack([heat_maps(QueryBundle((y,)), projections, x) for y in alone]).mean(0)
    carried = heat_maps(QueryBundle((layer.stored(Preset("x", torch.int8)),)), projections, x)
    assert float((carried - exact).abs().max()) < 0.5 * float((rounded - exact).abs().max())


@pytest.mark.parametrize("name", ["lossless", "exact", "balanced"])
def test_round_trip_through_safetensors_and_json(make_bundle, name) -> None:
    stored = make_bundle(height=6, width=10, steps=7).stored(PRESETS[name])
    tensors = load(save(stored.to_tensors()))
    back = QueryBundle.from_tensors(tensors, json.loads(json.dumps(stored.layout())))
    assert back.size == stored.size and back.nbytes() == stored.nbytes()
    for a, b in zip(back.layers, stored.layers, strict=True):
        assert a.counts == b.counts and torch.equal(a.plain(), b.plain())
        assert (a.name, a.heads, a.height, a.width, a.scale) == (b.name, b.heads, b.height, b.width, b.scale)


def test_maps_of_stored_queries_are_those_of_what_they_stand_for(make_bundle, projections, embeddings) -> None:
    stored = make_bundle(steps=4).stored(PRESETS["exact"])
    plain = QueryBundle(
        tuple(LayerQueries(y.name, y.heads, y.height, y.width, y.scale, y.plain()) for y in stored.layers)
    )
    for n in (2, 5):
        torch.testing.assert_close(
            heat_maps(stored, projections, embeddings(n)),
            heat_maps(plain, projections, embeddings(n)),
            rtol=0,
            atol=1e-6,
        )


def test_exact_keeps_maps_within_its_bound(make_bundle, projections, embeddings) -> None:
    bundle = make_bundle(steps=6)
    query = [(TokenSet(embeddings(2), (1,)),)]
    exact = class_maps(bundle, projections, query)
    error = (class_maps(bundle.stored(PRESETS["exact"]), projections, query) - exact).abs().max()
    assert float(error) < 2e-2 * float(exact.max() - exact.min())
    assert float((class_maps(bundle.stored(PRESETS["lossless"]), projections, query) - exact).abs().max()) < 1e-6


def test_pooled_steps_weigh_what_they_stand_for(projections, embeddings) -> None:
    """Seven equal steps of one kind and none of another: groups of two and one must not count alike."""
    one, other = torch.randn(2, 1, 2, 96, 8, generator=torch.Generator().manual_seed(3))
    steps = torch.cat([one[None].expand(6, -1, -1, -1, -1), other[None]])[:, 0]
    layer = LayerQueries("down", 2, 8, 12, 8**-0.5, steps)
    stored = layer.stored(Preset("three", torch.float32, groups=3))
    assert stored.counts == (3, 2, 2)
    for n in (2, 3):
        x = embeddings(n)
        parts = [heat_maps(QueryBundle((layer.at_steps([k]),)), projections, x) for k in (0, 6)]
        mixed = heat_maps(
            QueryBundle((LayerQueries("down", 2, 8, 12, 8**-0.5, steps[5:].mean(0, True)),)), projections, x
        )
        expected = parts[0] * 5 / 7 + mixed * 2 / 7
        torch.testing.assert_close(heat_maps(QueryBundle((stored,)), projections, x), expected, rtol=0, atol=1e-6)


def test_evenly_spaced_steps_share_the_memory(make_bundle) -> None:
    layer = make_bundle(steps=6).layers[0].stored(PRESETS["exact"])
    part = layer.at_steps([1, 3, 5])
    assert part.blocks.data_ptr() == layer.blocks[1].data_ptr() and part.counts == (1, 1, 1)
    assert torch.equal(part.plain(), layer.plain()[[1, 3, 5]])
    assert torch.equal(layer.at_steps([4, 0]).plain(), layer.plain()[[4, 0]])


def test_wrong_shapes_are_named() -> None:
    numbers, scales = pack_step(torch.randn(2, 16, 3), torch.int8)
    good = {"name": "a", "heads": 2, "height": 4, "width": 4, "scale": 1.0, "counts": (1,)}
    StoredQueries(**good, blocks=numbers[None], scales=scales[None])
    with pytest.raises(BackendError, match="2 steps"):
        StoredQueries(**{**good, "counts": (1, 1)}, blocks=numbers[None], scales=scales[None])
    with pytest.raises(BackendError, match="exactly when they are int8"):
        StoredQueries(**good, blocks=numbers[None], scales=None)
    with pytest.raises(BackendError, match="Scales of layer 'a'"):
        StoredQueries(**good, blocks=numbers[None], scales=scales[None, :, :2])
    with pytest.raises(BackendError, match="int16"):
        StoredQueries(**good, blocks=numbers[None].short(), scales=None)
