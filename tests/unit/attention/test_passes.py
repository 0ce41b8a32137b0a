"""Both kernels, every stored dtype, against the plain sums in float64."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.attention import passes, passes_numba
from backends.attention.fit_loss import FitExample, prepare_examples
from backends.attention.heatmaps import heat_maps
from backends.attention.map_loss import MapLoss
from backends.attention.passes import passes_over
from backends.attention.passes_torch import TorchPasses, at_once
from backends.attention.presets import PRESETS, Preset
from backends.attention.queries import QueryBundle, kept
from backends.attention.token_optimization import choose_ridge, learn_token
from backends.contract import BackendError, TokenRecipe

KERNELS = ["torch", "numba"]
DTYPES = [torch.int8, torch.float16, torch.bfloat16, torch.float32]
RECIPE = TokenRecipe("lbfgs", epochs=60, learning_rate=1.0)
#: Agreement of the kernels, relative to the largest sum or gradient.
STATED = 1e-6


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch) -> str:
    monkeypatch.setenv("OVAM_KERNEL", request.param)
    assert passes.kernel_name() == request.param
    return request.param


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_sums_and_gradients(make_bundle, kernel, dtype, threads, monkeypatch) -> None:
    monkeypatch.setattr(passes_numba, "_ALONE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    # Seven steps in three groups: unequal weights; 96 and 24 pixels: padded blocks.
    layers = make_bundle(steps=7).stored(Preset("any", dtype, groups=3)).blocks()
    generator = torch.Generator().manual_seed(2)
    keys = [torch.randn(y.heads, y.head_size, generator=generator) * 0.3 for y in layers]
    ps = passes_over(layers, kernel)
    logits, along = ps.project(keys), ps.project([k.flip(1) for k in keys])
    sums = ps.squash(logits, along, 0.5)
    upstream = [torch.randn(s.shape, generator=generator) for s in sums]
    pulled = ps.pull(logits, upstream)
    classes = ps.class_sums([torch.stack([k * f for f in (1, -1, 2, 0.5, 3, -2, 0.1)], 2) for k in keys])
    for i, y in enumerate(layers):
        q, w = y.plain(torch.float64), torch.tensor(y.weights(), dtype=torch.float64)
        z = torch.einsum("thpd,hd->thp", q, keys[i].double())
        moved = z + 0.5 * torch.einsum("thpd,hd->thp", q, keys[i].flip(1).double())
        expected = torch.einsum("thp,t->p", moved.sigmoid(), w)
        assert off(sums[i].flatten()[: y.pixels], expected) < STATED
        g = upstream[i].flatten()[: y.pixels].double()
        slope = torch.einsum("thp,p,t->thp", z.sigmoid() * (1 - z.sigmoid()), g, w)
        assert off(pulled[i], torch.einsum("thp,thpd->hd", slope, q)) < 2 * STATED
        twice = torch.einsum("thp,t->p", (2 * z).sigmoid(), w)
        assert classes[i].shape[0] == 7 and off(classes[i][2].flatten()[: y.pixels], twice) < STATED


def test_half_precision_products_as_on_a_gpu(make_bundle) -> None:
    """What a GPU does, run here: int8 numbers are exact in float16, keys and sums lose three digits."""
    layers = make_bundle(steps=3).stored(PRESETS["exact"]).blocks()
    keys = [torch.ones(y.heads, y.head_size, 2) * 0.1 for y in layers]
    half = TorchPasses(layers, compute=torch.float16).class_sums(keys)
    for a, b in zip(half, TorchPasses(layers).class_sums(keys), strict=True):
        assert off(a, b.double()) < 2e-3


def test_passes_may_run_in_several_threads_at_once(make_bundle, monkeypatch) -> None:
    monkeypatch.setattr(passes_numba, "_ALONE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layers = make_bundle(steps=4).stored(PRESETS["exact"]).blocks()
    keys = [torch.ones(y.heads, y.head_size) * 0.1 for y in layers]
    expected = [z.clone() for z in passes_over(layers).project(keys)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: passes_over(layers).project(keys), range(16)):
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def problem(make_bundle, projections, embeddings, seed=0, steps=13, preset="exact") -> FitExample:
    bundle = make_bundle(steps=steps, seed=seed)
    soft = heat_maps(bundle, projections, embeddings(2, 99) * 1.5)[1]
    mask = (soft > soft.flatten().quantile(0.75)).numpy().astype(np.float32)
    mask = np.kron(mask, np.ones((4, 4), np.float32))
    return FitExample(bundle.stored(PRESETS[preset]), mask, np.ones_like(mask))


def test_the_short_way_ends_where_the_paper_would(make_bundle, projections, embeddings, kernel) -> None:
    """L-BFGS on kept logits, from a sixth of the steps: no higher than 400 epochs of gradient descent, in far fewer passes."""
    example, start = problem(make_bundle, projections, embeddings), embeddings(2).numpy()
    paper = learn_token([example], projections, start, TokenRecipe("sgd", 400, 20.0), threshold=0.5)
    ours = learn_token([example], projections, start, RECIPE, threshold=0.5)
    assert ours.losses[-1] <= min(paper.losses) * 1.001 and ours.passes < 70
    assert list(ours.losses) == sorted(ours.losses, reverse=True)
    quick = learn_token([example], projections, start, RECIPE, stop_at=min(paper.losses) * 1.02)
    assert quick.reason == "target" and quick.passes < ours.passes


def test_the_loss_is_the_autograd_one(make_bundle, projections, embeddings) -> None:
    """One pass of the short way reports the loss that the general way computes, soft targets, weights and ridge included."""
    example = problem(make_bundle, projections, embeddings, steps=3)
    soft = replace(example, target=example.target * 0.7, weight=np.linspace(0, 1, example.weight.size).reshape(32, 48))
    for e in (example, soft):
        for at in ("target", "map"):
            for balance in (False, True):
                losses = [
                    learn_token([e], projections, embeddings(2).numpy(), r, loss_at=at).losses[0]
                    for r in (
                        replace(RECIPE, balance=balance, epochs=1),
                        TokenRecipe("sgd", 1, balance=balance),
                    )
                ]
                assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_gradient_of_the_loss(make_bundle, projections, embeddings) -> None:
    example = problem(make_bundle, projections, embeddings, steps=2)
    generator = torch.Generator().manual_seed(3)  # along some directions the slope is almost nothing
    for target in (example.target, example.target * 0.6 + 0.2):
        (prepared,) = prepare_examples([replace(example, target=target)], tokens=2, at="target", balance=True)
        layers = prepared.bundle.blocks()
        sums = [torch.rand(y.blocks.shape[1], 64, generator=generator) * y.steps * y.heads for y in layers]
        loss = MapLoss(prepared, layers)
        value, gradients, found = loss.value_and_gradient(sums)
        assert value == pytest.approx(loss.value(sums), rel=1e-6) and found.shape == (8, 12)
        along = [torch.randn(s.shape, generator=generator) for s in sums]
        slope = sum(float((g * a).sum()) for g, a in zip(gradients, along, strict=True))
        ends = [loss.value([s + e * a for s, a in zip(sums, along, strict=True)]) for e in (1e-2, -1e-2)]
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(slope, rel=2e-2)


def test_several_images_and_a_ridge_chosen_on_held_out_ones(make_bundle, projections, embeddings) -> None:
    lessons = [problem(make_bundle, projections, embeddings, seed=s) for s in (0, 1)]
    unseen = [problem(make_bundle, projections, embeddings, seed=s) for s in (2, 3)]
    start = embeddings(2).numpy()
    ridges = (0.0, 1e-3, 1e3)
    fit = choose_ridge(lessons, unseen, projections, start, RECIPE, ridges, threshold=0.5)
    alone = [
        learn_token(lessons, projections, start, replace(RECIPE, ridge=r), held_out=unseen, threshold=0.5)
        for r in ridges
    ]
    assert fit.held_out_iou == max(f.held_out_iou for f in alone) and fit.ridge in ridges and fit.ridge != 1e3
    with pytest.raises(BackendError, match="held-out"):
        choose_ridge(lessons, [], projections, start, RECIPE, ridges)


def test_deadline_cancel_and_preview(make_bundle, projections, embeddings) -> None:
    example, start = problem(make_bundle, projections, embeddings), embeddings(2).numpy()
    late = learn_token([example], projections, start, RECIPE, deadline=time.monotonic() - 1)
    assert late.reason == "deadline" and len(late.losses) == 1
    shown: list[np.ndarray] = []
    learn_token([example], projections, start, RECIPE, preview=lambda _loss, found: shown.append(found))
    assert shown[0].shape == (8, 12) and shown[0].min() >= 0 and shown[0].max() <= 1

    def cancel(_fraction: float, _sentence: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_token([example], projections, start, RECIPE, progress=cancel)


def test_small_decodes_to_what_it_was(make_bundle, projections, embeddings) -> None:
    bundle = make_bundle(height=16, width=24, steps=12)
    tensors, layout = kept(bundle, PRESETS["small"])
    back = QueryBundle.from_tensors(tensors, layout)
    components = sum(y.pixels * y.heads * y.head_size for y in back.layers)
    assert sum(t.numel() for t in tensors.values()) <= components * PRESETS["small"].bits / 8
    assert [y.counts for y in back.layers] == [(2,) * 6] * 3
    pooled = bundle.stored(Preset("pooled", torch.float32, groups=6))
    for a, b in zip(back.layers, pooled.layers, strict=True):
        assert float((a.plain() - b.plain()).square().mean().sqrt() / b.plain().square().mean().sqrt()) < 0.4
    smooth = replace(bundle.layers[0], queries=bundle.layers[0].queries[:1, :, :1].expand(12, -1, 16 * 24, -1).clone())
    tensors, layout = kept(QueryBundle((smooth,)), PRESETS["small"])
    error = QueryBundle.from_tensors(tensors, layout).layers[0].plain() - smooth.queries[:6]
    assert float(error.abs().max()) < 0.02 * float(smooth.queries.abs().max())
    with pytest.raises(BackendError, match="damaged"):
        QueryBundle.from_tensors({k: t[:-5] for k, t in tensors.items()}, layout)


def test_sums_of_all_steps_at_once_are_those_of_one_after_the_other(make_bundle) -> None:
    layers = make_bundle(steps=7).stored(Preset("any", torch.float32, groups=3)).blocks()
    generator = torch.Generator().manual_seed(5)
    keys = [torch.randn(y.heads, y.head_size, generator=generator) for y in layers]
    ps = TorchPasses(layers)
    logits = ps.project(keys)
    for layer, here, sums in zip(layers, logits, ps.squash(logits), strict=True):
        assert off(at_once(layer, here), sums.double()) < STATED


def test_far_logits_and_nan(make_bundle, kernel) -> None:
    """Sigmoids end at 0 and 1 however large a logit; NaN stays NaN, so that a fit that went astray is seen."""
    layers = make_bundle(steps=1).stored(Preset("any", torch.float32)).blocks()
    ps = passes_over(layers, kernel)
    z = [torch.zeros(y.steps * y.blocks.shape[1], y.heads, 64) for y in layers]
    for value, expected in ((1e30, 1.0), (-1e30, 0.0), (0.0, 0.5), (20.0, 1.0), (float("nan"), float("nan"))):
        sums = ps.squash([one + value for one in z])
        for s, y in zip(sums, layers, strict=True):
            assert torch.allclose(s / y.heads, torch.full_like(s, expected), atol=1e-6, equal_nan=True)
    big = [torch.full((y.heads, y.head_size, 3), 1e20) * torch.tensor([1.0, 0.0, -1.0]) for y in layers]
    for s, y in zip(ps.class_sums(big), layers, strict=True):
        real = s.flatten(1)[:, : y.pixels] / y.heads
        assert bool(((real[0] + real[2] - 1).abs() < 1e-6).all()) and torch.allclose(
            real[1], torch.full_like(real[1], 0.5)
        )
