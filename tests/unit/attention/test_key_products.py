"""Products with key projections, both kernels, against float64; and the coarser mask of a fit's first stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends.attention import passes_numba
from backends.attention.fit_loss import FitExample, bce_loss, prepare_examples
from backends.attention.key_products import TorchKeys, key_products
from backends.attention.passes_numba import NumbaKeys
from backends.attention.queries import KeyProjection

#: Agreement, relative to the largest number.
STATED = 1e-6
WIDTH = 96


def made(dtype: torch.dtype = torch.float32) -> list[KeyProjection]:
    generator = torch.Generator().manual_seed(3)
    sizes = ((2, 5), (3, 8), (8, 40))  # odd numbers of rows: threads' ranges are unequal
    return [
        KeyProjection(f"layer{i}", torch.randn(h * d, WIDTH, generator=generator).to(dtype), h, d**-0.5)
        for i, (h, d) in enumerate(sizes)
    ]


@pytest.mark.parametrize("kernel", ["torch", "numba"])
@pytest.mark.parametrize("threads", [1, 3])
def test_both_products(kernel, threads, monkeypatch) -> None:
    monkeypatch.setattr(passes_numba, "_ALONE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    projections = made()
    products = key_products(projections, kernel=kernel)
    assert isinstance(products, NumbaKeys if kernel == "numba" else TorchKeys)
    generator = torch.Generator().manual_seed(4)
    embedding = torch.randn(WIDTH, generator=generator)
    gradients = [torch.randn(p.heads, len(p.weight) // p.heads, generator=generator) for p in projections]
    for found, p in zip(products.keys(embedding), projections, strict=True):
        expected = (p.weight.double() @ embedding.double() * p.scale).view(p.heads, -1)
        assert found.shape == expected.shape
        assert float((found.double() - expected).abs().max() / expected.abs().max()) < STATED
    expected = sum(
        p.scale * (g.double().flatten() @ p.weight.double()) for g, p in zip(gradients, projections, strict=True)
    )
    found = products.pulled(gradients)
    assert found.shape == (WIDTH,)
    assert float((found.double() - expected).abs().max() / expected.abs().max()) < STATED


def test_compiled_products_are_for_plain_float32_in_the_hosts_memory() -> None:
    strided = [KeyProjection(p.name, p.weight.T.contiguous().T, p.heads, p.scale) for p in made()]
    assert isinstance(key_products(made(torch.float16)), TorchKeys)
    assert isinstance(key_products(strided), TorchKeys)


def test_a_coarser_mask_keeps_its_weight_and_the_loss_of_a_map_of_its_own_cells(make_bundle) -> None:
    rng = np.random.default_rng(0)
    target, weight = rng.random((48, 64), np.float32), rng.random((48, 64), np.float32)
    weight[:8, :8] = 0
    (fine,) = prepare_examples([FitExample(make_bundle(), target, weight)], tokens=2, at="target", balance=False)
    coarse = fine.coarser(16)
    assert coarse.target.shape == (1, 12, 16) and float(coarse.weight.sum()) == pytest.approx(1)
    assert float(coarse.weight[0, 0, 0]) == 0 and torch.isfinite(coarse.target).all()
    cells = torch.rand(1, 12, 16, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    maps = torch.cat([1 - cells, cells])
    blocks = maps.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert float(bce_loss(maps, coarse)) == pytest.approx(float(bce_loss(blocks, fine)), rel=1e-5)


def test_a_mask_that_blocks_do_not_fit_stays(make_bundle) -> None:
    (fine,) = prepare_examples(
        [FitExample(make_bundle(), np.eye(50, 64, dtype=np.float32), np.ones((50, 64), np.float32))],
        tokens=2,
        at="target",
        balance=False,
    )
    assert fine.coarser(16) is fine and fine.coarser(64) is fine
