"""Truth rules on exact arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovam_labeler.errors import BadMaskError
from ovam_labeler.truth import border_ring, build_truths

SIZE = (60, 80)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_target_is_the_union_of_the_labels_regions_and_others_are_background() -> None:
    a, b, c = box(5, 5, 10, 10), box(30, 30, 10, 10), box(5, 50, 20, 20)
    (truth,) = build_truths(SIZE, [("cat", a), ("cat", b), ("dog", c)], ["cat"])
    assert truth.kind == "positive"
    assert (truth.mask == (a | b)).all()
    assert not truth.ignore[50, 5]
    assert not truth.ignore[c].any()


def test_rest_is_unknown_when_the_annotation_is_not_exhaustive() -> None:
    cat, dog = box(5, 5, 20, 20), box(5, 50, 20, 20)
    (truth,) = build_truths(SIZE, [("cat", cat), ("dog", dog)], ["cat"], exhaustive=False)
    assert not truth.ignore[dog].any()
    assert truth.ignore[~cat & ~dog].all()
    assert not truth.ignore[15, 15]


def test_deleted_label_is_negative_everywhere() -> None:
    truths = build_truths(SIZE, [("dog", box(0, 0, 5, 5))], ["cat", "dog"])
    assert [t.kind for t in truths] == ["negative", "positive"]
    assert not truths[0].mask.any()
    assert not truths[0].ignore.any()


def test_only_taught_labels_give_truths() -> None:
    assert build_truths(SIZE, [("dog", box(0, 0, 5, 5))], []) == []


def test_ring_lies_on_both_sides_and_not_at_the_images_edge() -> None:
    mask = box(0, 0, 40, 40)
    ring = border_ring(mask, 2)
    assert ring[38:42, :30].all()
    assert not ring[37, 0]
    assert not ring[42, 0]
    assert not ring[0, 0]


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_tiny_mask_is_never_swallowed(shape: tuple[int, int]) -> None:
    mask = box(20, 20, *shape)
    assert not (border_ring(mask, 5) & mask).any() or (mask & ~border_ring(mask, 5)).sum() >= mask.sum() / 2


def test_full_and_empty_masks_have_no_ring() -> None:
    assert not border_ring(np.ones(SIZE, bool), 3).any()
    assert not border_ring(np.zeros(SIZE, bool), 3).any()


def test_wrong_size_is_one_sentence() -> None:
    with pytest.raises(BadMaskError, match="10x10"):
        build_truths(SIZE, [("cat", np.ones((10, 10), bool))], ["cat"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 59), st.integers(0, 79), st.integers(1, 60), st.integers(1, 80), st.integers(0, 12))
def test_ring_equals_distance_to_the_other_side(top: int, left: int, height: int, width: int, ring: int) -> None:
    mask = box(top, left, height, width)
    found = border_ring(mask, ring)
    if found.any():
        ys, xs = np.nonzero(found)
        for y, x in list(zip(ys, xs, strict=True))[:: max(1, len(ys) // 10)]:
            near = mask[max(0, y - ring) : y + ring + 1, max(0, x - ring) : x + ring + 1]
            assert near.any() and not near.all()
    assert (mask & ~found).sum() >= mask.sum() / 2
