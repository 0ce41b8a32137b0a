"""The run lengths of CVAT's masks, judged by its SDK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cvat_sdk import masks as judge
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.cvat import masks

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: arrays(np.bool_, size)).filter(np.any)


@given(MASKS)
def test_written_masks_are_the_sdk_s_and_are_read_by_both(mask: np.ndarray) -> None:
    height, width = mask.shape
    points = masks.encode(mask)
    assert points == judge.encode_mask(mask)
    assert np.array_equal(masks.decode(points, height, width), mask)
    assert np.array_equal(judge.decode_mask(points, image_width=width, image_height=height), mask)


@given(MASKS, st.data())
def test_masks_of_a_larger_box_than_theirs_are_read(mask: np.ndarray, data: st.DataObject) -> None:
    """The editor keeps the box of a mask of which a part was erased."""
    height, width = mask.shape
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = [left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))]
    points = judge.encode_mask(mask, box)
    expected = judge.decode_mask(points, image_width=width, image_height=height)
    assert np.array_equal(masks.decode([float(v) for v in points], height, width), expected)


@pytest.mark.parametrize(
    "points",
    [
        [], [0, 4, 0, 0], [0, 4, 0, 0, 9, 1], [0, 4, 1, 0, 0, 1], [0, 5, 0, 0, 1, 1], [-1, 5, 0, 0, 1, 1], ["a"] * 6,
        [0.5, 3.5, 0, 0, 1, 1], [0, float("nan"), 0, 0, 1, 1], [0, 1e300, 0, 0, 1, 1], None, [[0, 4], [0, 0]],
    ],
)  # fmt: skip
def test_points_that_are_no_mask_are_one_sentence(points: Any) -> None:
    with pytest.raises(BadMaskError) as caught:
        masks.decode(points, 4, 4)
    assert str(caught.value).endswith(".")


def test_an_empty_mask_is_not_written() -> None:
    with pytest.raises(BadMaskError):
        masks.encode(np.zeros((3, 3), dtype=bool))
