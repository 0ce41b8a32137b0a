"""The figures of merit agree with their definitions, computed the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovam_labeler.evaluation import metrics

maps = arrays(np.float32, (9, 13), elements=st.floats(0, 1, width=32))
masks = arrays(np.bool_, (9, 13)).filter(lambda m: bool(m.any()))


@settings(max_examples=60, deadline=None)
@given(maps, masks)
def test_curve_equals_thresholding_one_by_one(soft, truth):
    curve = metrics.iou_curve(soft, truth)
    relative = metrics.min_max(soft)
    for k in (0, 1, 7, 20, 39):
        # Away from the bin's edge: a value on the edge may fall on either side by float rounding.
        if np.abs(relative * metrics.BINS - k).min() < 1e-3 and k:
            continue
        assert curve[k] == pytest.approx(metrics.iou(relative >= k / metrics.BINS, truth))


@settings(max_examples=40, deadline=None)
@given(maps.filter(lambda m: m.max() - m.min() > 0.05), masks, st.floats(0.1, 5), st.floats(-1, 1))
def test_curve_ignores_scale_and_offset(soft, truth, scale, offset):
    ours = metrics.iou_curve(soft, truth)
    moved = metrics.iou_curve((soft * scale + offset).astype(np.float64), truth)
    # A pixel may cross a bin edge by rounding, so a few entries may differ.
    assert np.median(np.abs(ours - moved)) < 0.01


def test_curve_of_the_truth_itself_is_perfect_and_of_a_constant_map_is_the_area():
    truth = np.zeros((8, 8), bool)
    truth[2:5, 3:7] = True
    assert metrics.iou_curve(truth.astype(float), truth)[1:].min() == 1.0
    curve = metrics.iou_curve(np.full((8, 8), 0.3), truth)
    assert curve[0] == pytest.approx(12 / 64)
    assert curve[1:].max() == 0


def test_curve_refuses_an_empty_truth_and_another_size():
    with pytest.raises(ValueError, match="empty"):
        metrics.iou_curve(np.zeros((4, 4)), np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="size"):
        metrics.iou_curve(np.zeros((4, 4)), np.ones((4, 5), bool))


def test_leave_one_out_never_looks_at_the_concept_itself():
    def peak(k: int, height: float) -> np.ndarray:
        curve = np.zeros(metrics.BINS)
        curve[k] = height
        return curve

    # "c" alone would pull every threshold to 30; left out, the others decide.
    picked = metrics.leave_one_out({"a": peak(10, 0.5), "b": peak(10, 0.5), "c": peak(30, 0.9)})
    assert picked == {"a": 30, "b": 30, "c": 10}
    with pytest.raises(ValueError, match="at least 2"):
        metrics.leave_one_out({"a": peak(1, 1)})


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_pairs():
    rng = np.random.default_rng(1)
    few, many = rng.normal(0.1, 0.2, 12), rng.normal(0.1, 0.2, 400)
    low, high = metrics.paired_bootstrap(few)
    assert low < few.mean() < high
    narrow = metrics.paired_bootstrap(many)
    assert narrow[1] - narrow[0] < high - low
    assert metrics.paired_bootstrap([0.2] * 5) == (pytest.approx(0.2), pytest.approx(0.2))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_auc_counts_pairs(present, absent):
    pairs = [(p > a) + (p == a) / 2 for p in present for a in absent]
    assert metrics.auc(present, absent) == pytest.approx(np.mean(pairs))


def test_painted_at_recall_takes_the_cut_that_reaches_it():
    present = [0.9, 0.8, 0.7, 0.6, 0.1]
    assert metrics.painted_at_recall(present, [0.95, 0.65, 0.5, 0.2], 0.8) == pytest.approx(0.5)
    assert metrics.painted_at_recall(present, [0.0], 1.0) == 0.0
    assert np.isnan(metrics.painted_at_recall([], [0.1]))
    with pytest.raises(ValueError, match="recall"):
        metrics.painted_at_recall(present, [0.1], 0)
