"""The brush codec against the SDK's recorded output, and against itself."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.label_studio.rle import decode_mask, encode_mask

CASES = json.loads((Path(__file__).parent / "fixtures" / "sdk_brush.json").read_text("utf-8"))["cases"]


def expected(case: dict[str, Any]) -> np.ndarray:
    mask = np.zeros(case["height"] * case["width"], dtype=bool)
    mask[slice(None) if case["on"] == "all" else [] if case["on"] == "none" else case["on"]] = True
    return mask.reshape(case["height"], case["width"])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_reads_what_the_sdk_wrote(case: dict[str, Any]) -> None:
    assert np.array_equal(decode_mask(case["rle"], case["height"], case["width"]), expected(case))


@pytest.mark.parametrize("case", [c for c in CASES if c["name"] != "soft_edges"], ids=lambda c: c["name"])
def test_writes_the_sdks_header_and_no_more_bytes_than_it(case: dict[str, Any]) -> None:
    written = encode_mask(expected(case))
    assert written[:6] == case["rle"][:6]
    assert written[6] >> 3 == case["rle"][6] >> 3
    assert len(written) <= len(case["rle"])


masks = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1)).map(
    lambda t: np.random.default_rng(t[2]).random((t[0], t[1])) < t[3]
)


@settings(max_examples=60, deadline=None)
@given(masks)
def test_round_trip(mask: np.ndarray) -> None:
    assert np.array_equal(decode_mask(encode_mask(mask), *mask.shape), mask)


def test_runs_longer_than_the_format_holds_are_split() -> None:
    mask = np.zeros((700, 900), dtype=bool)
    mask[300:] = True
    assert np.array_equal(decode_mask(encode_mask(mask), 700, 900), mask)


def test_a_count_that_lies_allocates_nothing() -> None:
    lying = [255, 255, 255, 252, *encode_mask(np.ones((4, 4), dtype=bool))[4:]]
    tracemalloc.start()
    with pytest.raises(BadMaskError, match="4294967292 values"):
        decode_mask(lying, 4, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@settings(max_examples=80, deadline=None)
@given(masks, st.data())
def test_damaged_streams_decode_or_say_so(mask: np.ndarray, data: st.DataObject) -> None:
    stream = encode_mask(mask)
    at = data.draw(st.integers(0, len(stream) - 1))
    damaged = data.draw(
        st.sampled_from([stream[:at], [*stream[:at], data.draw(st.integers(0, 255)), *stream[at + 1 :]]])
    )
    try:
        assert decode_mask(damaged, *mask.shape).shape == mask.shape
    except BadMaskError as error:
        assert str(error).endswith(".")


@pytest.mark.parametrize(
    "rle", [None, 5, 10**12, "abc", [], [0, 1], [0.5] * 9, [256] * 9, [-1] * 9, [None] * 9, [[0]] * 9, {"a": 1}]
)
def test_what_is_no_byte_list_is_refused(rle: Any) -> None:
    with pytest.raises(BadMaskError):
        decode_mask(rle, 4, 4)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,), (2, 2, 2)])
def test_masks_without_two_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadMaskError):
        encode_mask(np.zeros(shape, dtype=bool))
