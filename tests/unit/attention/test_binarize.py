from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.attention.binarize import binarize, masks_from_soft, recentre, relative_map
from backends.contract import BackendError


def blob(row: float, column: float, height: int = 12, width: int = 20, scale: float = 1.0) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return scale * torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 18.0)


def test_relative_map_spans_0_to_1_at_image_size() -> None:
    soft = relative_map(0.2 + blob(6, 5, scale=0.1), (60, 100))
    assert soft.shape == (60, 100) and soft.dtype == np.float32
    assert soft.min() == 0 and soft.max() == 1
    row, column = np.unravel_index(soft.argmax(), soft.shape)
    assert abs(row - 32) <= 5 and abs(column - 27) <= 5


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_threshold_is_relative(scale) -> None:
    expected = binarize(blob(6, 5)[None], (60, 100), [0.4])[0]
    assert np.array_equal(binarize(blob(6, 5, scale=scale)[None], (60, 100), [0.4])[0], expected)
    assert 0 < expected.mean() < 0.5


def test_a_higher_threshold_gives_a_smaller_mask_within() -> None:
    loose, tight = (binarize(blob(6, 5)[None], (60, 100), [t])[0] for t in (0.3, 0.7))
    assert tight.sum() < loose.sum() and not (tight & ~loose).any()


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_map_is_no_evidence(value) -> None:
    assert not binarize(torch.full((1, 4, 4), value), (8, 8), [0.4])[0].any()


def test_a_threshold_of_zero_does_not_paint_the_minimum() -> None:
    assert not binarize(blob(6, 5)[None], (12, 20), [0.0])[0].all()


def test_shrinking_to_an_image_smaller_than_the_map() -> None:
    assert binarize(blob(6, 5)[None], (1, 1), [0.4])[0].shape == (1, 1)


def test_exclusive_and_independent() -> None:
    maps = torch.stack([blob(6, 8), blob(6, 12)])
    free = binarize(maps, (12, 20), [0.4, 0.4], overlap="independent")
    only = binarize(maps, (12, 20), [0.4, 0.4], overlap="exclusive")
    assert (free[0] & free[1]).any()
    assert not (only[0] & only[1]).any()
    assert np.array_equal(only[0] | only[1], free[0] | free[1])
    assert only[0][6, 8] and only[1][6, 12] and not only[1][6, 9]


def test_confidence_moves_the_border() -> None:
    maps = torch.stack([blob(6, 8), blob(6, 12)])
    even = binarize(maps, (12, 20), [0.4, 0.4])
    sure = binarize(maps, (12, 20), [0.4, 0.4], confidence=[1.0, 0.3])
    assert sure[0].sum() > even[0].sum() and sure[1].sum() < even[1].sum()


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(1, 5), seed=st.integers(0, 10_000), exclusive=st.booleans())
def test_masks_lie_within_their_thresholds(classes, seed, exclusive) -> None:
    rng = np.random.default_rng(seed)
    soft = [rng.random((5, 7), dtype=np.float32) for _ in range(classes)]
    thresholds = rng.random(classes).tolist()
    masks = masks_from_soft(soft, thresholds, overlap="exclusive" if exclusive else "independent")
    for mask, m, tau in zip(masks, soft, thresholds, strict=True):
        assert (m[mask] >= tau).all()
    if exclusive:
        assert np.stack(masks).sum(0).max() <= 1
        covered = np.stack([(m >= t) & (m > 0) for m, t in zip(soft, thresholds, strict=True)]).any(0)
        assert np.array_equal(np.stack(masks).any(0), covered)


def test_recentre_puts_the_threshold_at_one_half() -> None:
    soft = np.array([0.0, 0.1, 0.2, 0.6, 1.0], np.float32)
    np.testing.assert_allclose(recentre(soft, 0.2), [0.0, 0.25, 0.5, 0.75, 1.0], atol=1e-6)
    for tau in (0.0, 1.0):
        assert np.isfinite(recentre(soft, tau)).all()
        assert np.array_equal(recentre(soft, tau) >= 0.5, soft >= tau)


def test_wrong_input_is_named() -> None:
    with pytest.raises(BackendError, match="threshold is 40"):
        masks_from_soft([np.zeros((2, 2))], [40])
    with pytest.raises(BackendError, match="as many thresholds"):
        masks_from_soft([np.zeros((2, 2))], [])
    with pytest.raises(BackendError, match="one size"):
        masks_from_soft([np.zeros((2, 2)), np.zeros((2, 3))], [0.1, 0.1])
    with pytest.raises(BackendError, match="'both'"):
        masks_from_soft([np.zeros((2, 2))] * 2, [0.1, 0.1], overlap="both")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="NaN"):
        relative_map(torch.tensor([[float("nan")]]), (2, 2))
    assert binarize(torch.zeros(0, 4, 4), (4, 4), []) == []
