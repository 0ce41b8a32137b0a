from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.attention.heatmaps import resize_maps
from backends.contract import BackendError, Refiner
from backends.refiners.guided_filter import GuidedFilter


def scene(height: int = 96, width: int = 160, *, equal_grey: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy image of a disc, its exact mask, and the mask as a 12 x 20 heat map sees it: area fractions, upsampled."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    truth = (y - 50) ** 2 + (x - 77) ** 2 < 30**2
    inside, outside = ((180, 60, 60), (60, 120, 120)) if equal_grey else ((230, 130, 90), (60, 120, 160))
    image = np.where(truth[..., None], inside, outside) + rng.normal(0, 8, (height, width, 3))
    cells = truth.reshape(12, height // 12, 20, width // 20).mean((1, 3))
    soft = resize_maps(torch.from_numpy(cells.astype(np.float32))[None], (height, width))[0].numpy()
    return image.clip(0, 255).astype(np.uint8), truth, soft


def iou(soft: np.ndarray, truth: np.ndarray) -> float:
    mask = soft >= 0.5
    return float((mask & truth).sum() / (mask | truth).sum())


def test_it_is_a_refiner() -> None:
    assert isinstance(GuidedFilter(), Refiner)


@pytest.mark.parametrize("colour", [True, False])
def test_an_edge_gets_sharper(colour) -> None:
    image, truth, soft = scene()
    refined = GuidedFilter(colour=colour).refine(image, soft)
    assert refined.shape == soft.shape and refined.dtype == np.float32
    assert iou(refined, truth) > iou(soft, truth)
    assert iou(refined, truth) > 0.97
    # Across the disc's right edge the map falls faster than before.
    assert np.abs(np.diff(refined[50, 100:116])).max() > np.abs(np.diff(soft[50, 100:116])).max() + 0.1


def test_colour_sees_an_edge_of_equal_brightness() -> None:
    image, truth, soft = scene(equal_grey=True)
    assert (
        iou(GuidedFilter().refine(image, soft), truth)
        > iou(GuidedFilter(colour=False).refine(image, soft), truth) + 0.02
    )


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 999), colour=st.booleans())
def test_the_range_and_the_size_are_kept(height, width, seed, colour) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    refined = GuidedFilter(colour=colour).refine(image, rng.random((height, width)))
    assert refined.shape == (height, width)
    assert np.isfinite(refined).all() and refined.min() >= 0 and refined.max() <= 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_stays(value) -> None:
    image, _, soft = scene()
    np.testing.assert_allclose(GuidedFilter().refine(image, np.full_like(soft, value)), value, atol=1e-4)


def test_a_flat_image_only_smooths() -> None:
    _, truth, soft = scene()
    refined = GuidedFilter().refine(np.full((*soft.shape, 3), 90, np.uint8), soft)
    assert abs(float(refined.mean()) - float(soft.mean())) < 0.02
    assert np.abs(np.diff(refined, axis=1)).max() < np.abs(np.diff(soft, axis=1)).max()


def test_inputs_are_left_alone_and_checked() -> None:
    image, _, soft = scene()
    copies = image.copy(), soft.copy()
    image.flags.writeable = soft.flags.writeable = False
    GuidedFilter().refine(image, soft)
    assert np.array_equal(image, copies[0]) and np.array_equal(soft, copies[1])
    with pytest.raises(BackendError, match="uint8"):
        GuidedFilter().refine(image.astype(np.float32), soft)
    with pytest.raises(BackendError, match="the image's"):
        GuidedFilter().refine(image, soft.T)
    with pytest.raises(BackendError, match=r"outside 0\.\.1"):
        GuidedFilter().refine(image, soft * np.nan)
    for bad in ({"radius": 0}, {"smoothness": 0}, {"grid": 4}):
        with pytest.raises(BackendError, match=next(iter(bad))):
            GuidedFilter(**bad)
