"""Arrays survive the codec bit for bit; bytes that lie are refused before anything is allocated for them."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from token_store import tensor_codec as codec
from token_store.contract import InvalidTokenError, InvalidValueError, StoreError

EMBEDDINGS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 6), st.integers(1, 40)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def safetensors_bytes(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@given(EMBEDDINGS)
def test_embedding_round_trip(embedding: np.ndarray) -> None:
    data, sha256 = codec.encode_embedding(embedding)
    assert sha256 == sha(data)
    back = codec.decode_embedding(data, sha256)
    assert back.dtype == np.float32
    assert back.shape == embedding.shape
    assert back.tobytes() == embedding.tobytes()
    assert back.flags.writeable


@given(EMBEDDINGS, st.data())
def test_any_changed_byte_is_noticed(embedding: np.ndarray, data: st.DataObject) -> None:
    stored, sha256 = codec.encode_embedding(embedding)
    place = data.draw(st.integers(0, len(stored) - 1))
    changed = bytearray(stored)
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidTokenError, match="sha256"):
        codec.decode_embedding(bytes(changed), sha256)


def test_layout_in_memory_does_not_matter() -> None:
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (wide.T, wide[:, ::2], wide[::-1]):
        data, sha256 = codec.encode_embedding(view)
        np.testing.assert_array_equal(codec.decode_embedding(data, sha256), view)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidTokenError):
        codec.decode_embedding(data, sha(data))


BODY = np.ones((2, 3), np.float32).tobytes()
GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    "data",
    [
        safetensors_bytes({"embedding": {**GOOD, "shape": [2, 4]}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "shape": [6]}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "shape": [1, 6]}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "shape": [-2, -3]}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "shape": [True, 6]}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "shape": "23"}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "dtype": "I32"}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "data_offsets": [0, 2**40]}}, BODY),
        safetensors_bytes({"embedding": {**GOOD, "shape": [2**31, 2**31]}}, BODY),
        safetensors_bytes({"embedding": [1]}, BODY),
        safetensors_bytes({"other": GOOD}, BODY),
        safetensors_bytes({}, b""),
        safetensors_bytes([], BODY),
        safetensors_bytes(b"[" * 4000, BODY),
        safetensors_bytes(json.dumps({"embedding": GOOD}).encode() + b" " * 5000, BODY),
        struct.pack("<Q", 2**63) + BODY,
        safetensors.numpy.save({"embedding": np.array([[1, np.nan], [0, 1]], np.float32)}),
        safetensors.numpy.save({"embedding": np.ones((2, 3), np.float32), "b": np.ones((2, 3), np.float32)}),
    ],
)
def test_well_hashed_lies_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidTokenError):
        codec.decode_embedding(data, sha(data))


def test_good_handmade_bytes_are_read() -> None:
    data = safetensors_bytes({"embedding": GOOD}, BODY)
    np.testing.assert_array_equal(codec.decode_embedding(data, sha(data)), np.ones((2, 3), np.float32))


def test_embedding_too_large_is_refused() -> None:
    with pytest.raises(InvalidTokenError, match="at most"):
        codec.encode_embedding(np.zeros((2, codec.MAX_EMBEDDING_NUMBERS), np.float32))


@given(SIZES.flatmap(lambda size: st.tuples(hnp.arrays(np.bool_, size), hnp.arrays(np.bool_, size))))
def test_masks_round_trip(pair: tuple[np.ndarray, np.ndarray]) -> None:
    data, sha256 = codec.encode_masks(*pair)
    back = codec.decode_masks(data, sha256, *pair[0].shape)
    for before, after in zip(pair, back, strict=True):
        assert after.dtype == np.bool_
        np.testing.assert_array_equal(before, after)


@given(SIZES, SIZES)
@settings(max_examples=50)
def test_masks_of_another_size_are_refused(size: tuple[int, int], asked: tuple[int, int]) -> None:
    def stored_bytes(height: int, width: int) -> int:
        return (height * width + 7) // 8

    data, sha256 = codec.encode_masks(np.ones(size, bool), np.zeros(size, bool))
    if stored_bytes(*size) != stored_bytes(*asked):
        with pytest.raises(StoreError, match="mask"):
            codec.decode_masks(data, sha256, *asked)


def test_masks_are_compact() -> None:
    mask = np.zeros((2000, 2000), bool)
    mask[500:1500, 300:900] = True
    assert len(codec.encode_masks(mask, ~mask)[0]) < 10_000


def test_a_bomb_is_not_inflated() -> None:
    bomb = np.frombuffer(zlib.compress(bytes(1 << 27)), np.uint8)
    data = safetensors.numpy.save({"mask": bomb, "ignore": bomb})
    tracemalloc.start()
    with pytest.raises(StoreError, match="mask"):
        codec.decode_masks(data, sha(data), 100, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    with pytest.raises(StoreError, match="refused"):
        codec.decode_masks(data, sha(data), 1 << 20, 1 << 20)


def test_tampered_masks_are_refused() -> None:
    mask = np.ones((8, 8), bool)
    data, sha256 = codec.encode_masks(mask, ~mask)
    with pytest.raises(StoreError, match="sha256"):
        codec.decode_masks(data[:-1] + b"\0", sha256, 8, 8)
    cut = safetensors.numpy.save({"mask": np.frombuffer(zlib.compress(b"\xff" * 8)[:-2], np.uint8)})
    with pytest.raises(StoreError):
        codec.decode_masks(cut, sha(cut), 8, 8)


def test_wrong_masks_are_refused() -> None:
    mask = np.ones((4, 4), bool)
    for pair in ((mask, mask[:2]), (mask.astype(np.uint8), mask), (mask[0], mask[0]), (mask[:0], mask[:0]), (1, mask)):
        with pytest.raises(InvalidValueError):
            codec.encode_masks(*pair)  # type: ignore[arg-type]
