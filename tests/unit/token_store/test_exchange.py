"""Tokens as files: what goes out comes back, and what was changed on the way is refused with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from token_store.contract import InvalidTokenError
from token_store.exchange import MAX_TEXT, SharedToken, check_class_name, pack, unpack
from token_store.safetensors_file import MAX_FILE_BYTES, MAX_HEADER_BYTES, parse, read_bytes
from token_store.textual_inversion import unpack_inversion

SPACE = "ab" * 32


def token(name: str = "tea pot", seed: int = 0, **fields: Any) -> SharedToken:
    values: dict[str, Any] = {
        "fingerprint": {"space": SPACE, "model": "tiny", "settings": {"timesteps": [50]}},
        "embedding": np.random.default_rng(seed).standard_normal((2, 8)).astype(np.float32),
        "recipe": {"optimizer": "adam", "epochs": 100},
        "metrics": {"train_iou": 0.7, "losses": [0.5, 0.25]},
        "licence": "CC-BY-4.0",
        "provenance": {"program": "ovam-labeler 0.1.0"},
    }
    return SharedToken(class_name=name, **{**values, **fields})


def same(one: SharedToken, other: SharedToken) -> bool:
    plain = ("class_name", "fingerprint", "recipe", "metrics", "licence", "provenance")
    return all(getattr(one, f) == getattr(other, f) for f in plain) and np.array_equal(one.embedding, other.embedding)


def rebuilt(data: bytes, change: Any = None, **metadata: str) -> bytes:
    """The file with its entries changed by ``change`` and all checksums made to fit again: a deliberate forgery."""
    tensors = safetensors.numpy.load(data)
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    meta = header["__metadata__"]
    entries = json.loads(meta["tokens"])
    if change is not None:
        change(entries, tensors)
    for entry in entries:
        if entry["tensor"] in tensors:
            entry["sha256"] = hashlib.sha256(tensors[entry["tensor"]].tobytes()).hexdigest()
    meta["tokens"] = json.dumps(entries)
    meta["sha256"] = hashlib.sha256(meta["tokens"].encode()).hexdigest()
    return safetensors.numpy.save(tensors, {**meta, **metadata})


def raw(header: Any, content: bytes = b"", length: int | None = None) -> bytes:
    """A file of any header, also of one whose length is a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def test_one_and_many_come_back_as_they_went() -> None:
    many = [token(f"class {k}", k) for k in range(5)] + [token("Zürich/東京 🐌", 9)]
    assert same(unpack(pack([token()]))[0], token())
    assert all(same(a, b) for a, b in zip(unpack(pack(many)), many, strict=True))
    assert pack(many) == pack(many)


def test_any_reader_of_safetensors_finds_the_embedding() -> None:
    found = safetensors.numpy.load(pack([token()]))
    assert list(found) == ["token.0"] and np.array_equal(found["token.0"], token().embedding)


@pytest.mark.parametrize(
    "name",
    ["", "  ", "../x", "a/../../b", "..", "/etc/passwd", "C:\\x", "c:/x", "\\\\host\\share", "~/x", "a\\..\\b", "x\x00", "x\n", "x\x1b[2J"]
    + ["x\u202ey", "\ud800", "n" * 501],
)  # fmt: skip
def test_class_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidTokenError, match="class name"):
        check_class_name(name)
    with pytest.raises(InvalidTokenError):
        pack([token(name)])
    with pytest.raises(InvalidTokenError, match="class name"):
        unpack(rebuilt(pack([token()]), lambda entries, _: entries[0].update(class_name=name)))


@pytest.mark.parametrize("name", ["car/truck", "...", "a..b", ".hidden", "defect_07", "50 %", "C: drive", "~x"])
def test_odd_but_honest_class_names_pass(name: str) -> None:
    assert unpack(pack([token(name)]))[0].class_name == name


def poison(kind: str) -> tuple[bytes, str]:
    good = pack([token()])
    length = struct.unpack("<Q", good[:8])[0]

    def put(value: Any) -> Any:
        def change(_entries: Any, tensors: dict[str, np.ndarray]) -> None:
            tensors["token.0"] = value

        return change

    def entry(**fields: Any) -> Any:
        return lambda entries, _: entries[0].update(fields)

    bad = token().embedding.copy()
    bad[1, 3] = np.nan
    huge = token().embedding.copy()
    huge[0, 0] = np.inf
    match kind:
        case "tampered number":
            return good[:-5] + bytes([good[-5] ^ 1]) + good[-4:], "does not match its sha256"
        case "tampered metadata":
            return good.replace(b"CC-BY-4.0", b"CC-BY-5.0"), "do not match their sha256"
        case "two tensors swapped":
            two = pack([token("a", 1), token("b", 2)])
            start = 8 + struct.unpack("<Q", two[:8])[0]
            middle = (len(two) - start) // 2 + start
            return two[:start] + two[middle:] + two[start:middle], "does not match its sha256"
        case "NaN":
            return rebuilt(good, put(bad)), "NaN"
        case "infinite":
            return rebuilt(good, put(huge)), "infinite"
        case "one row":
            return rebuilt(good, put(bad[:1] * 0)), "shape"
        case "half precision":
            return rebuilt(good, put(token().embedding.astype(np.float16))), "F32 is needed"
        case "no space":
            return rebuilt(good, entry(fingerprint={"model": "x"})), "embedding space"
        case "space is a path":
            return rebuilt(good, entry(fingerprint={"space": "../" + "a" * 61})), "embedding space"
        case "licence":
            return rebuilt(good, entry(licence="<script>")), "SPDX"
        case "escape sequence":
            return rebuilt(good, entry(provenance={"x": "\x1b]0;owned\x07"})), "control characters"
        case "long text":
            return rebuilt(good, entry(recipe={"x": "y" * (MAX_TEXT + 1)})), "too long"
        case "many values":
            return rebuilt(good, entry(metrics={"x": [0] * 30_000})), "values"
        case "huge integer":
            return rebuilt(good, entry(metrics={"x": 10**30})), "63 bits"
        case "another field":
            return rebuilt(good, entry(path="/etc")), "list of tokens"
        case "another tensor":
            return rebuilt(good, lambda _, tensors: tensors.update({"../../x": token().embedding})), "one to one"
        case "another format":
            return rebuilt(good, format="zip"), "format"
        case "a later version":
            return rebuilt(good, version="2"), "version '2'"
        case "2 GB header":
            return raw(b"{}", length=2 << 30), f"header of {2 << 30} bytes"
        case "header of all 64 bits":
            return b"\xff" * 16, "header of 18446744073709551615 bytes"
        case "header longer than the file":
            return raw(b"{}", length=1000), "only 2 more"
        case "tensor past the end":
            return raw(
                {"token.0": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}}
            ), "bytes"
        case "shape of a billion dimensions":
            return raw({"x": {"dtype": "F32", "shape": [2] * 1000, "data_offsets": [0, 0]}}), "shape"
        case "overlap":
            one = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
            return raw({"a": one, "b": one}, b"1234"), "overlap"
        case "hole":
            return raw({"a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}, b"1234"), "holes"
        case "bytes at the end":
            return good + b"#!/bin/sh\n", "after its tensors"
        case "repeated key":
            return raw(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'), "twice"
        case "deep nesting":
            return raw(b"[" * 200_000), "JSON|nested"
        case "NaN in JSON":
            return raw(b'{"a": NaN}'), "NaN"
        case "digits":
            return raw(b'{"a": ' + b"9" * 10_000 + b"}"), "JSON"
        case "cut":
            return good[: length // 2], "header"
        case "empty":
            return b"", "0 bytes"
    raise AssertionError(kind)


POISONS = [
    "tampered number", "tampered metadata", "two tensors swapped", "NaN", "infinite", "one row", "half precision", "no space",
    "space is a path", "licence", "escape sequence", "long text", "many values", "huge integer", "another field",
    "another tensor", "another format", "a later version", "2 GB header", "header of all 64 bits",
    "header longer than the file", "tensor past the end", "shape of a billion dimensions", "overlap", "hole",
    "bytes at the end", "repeated key", "deep nesting", "NaN in JSON", "digits", "cut", "empty",
]  # fmt: skip


@pytest.mark.parametrize("kind", POISONS)
def test_poisoned_files_are_refused_with_a_reason(kind: str) -> None:
    data, reason = poison(kind)
    with pytest.raises(InvalidTokenError, match=reason) as caught:
        unpack(data)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_lying_header_allocates_nothing() -> None:
    for data in (poison("2 GB header")[0], poison("tensor past the end")[0], poison("header of all 64 bits")[0]):
        tracemalloc.start()
        with pytest.raises(InvalidTokenError):
            unpack(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def test_a_file_whose_header_is_really_two_gigabytes_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with open(path, "wb") as file:  # sparse: it takes no room on the disk
        file.write(struct.pack("<Q", 2 << 30))
        file.truncate(8 + (2 << 30))
    tracemalloc.start()
    with pytest.raises(InvalidTokenError, match=f"at most {MAX_FILE_BYTES}"):
        read_bytes(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_pickles_pipes_and_missing_files_are_refused(tmp_path: Path) -> None:
    import pickle
    import zipfile

    (tmp_path / "learned_embeds.bin").write_bytes(b"")
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile(tmp_path / "torch.safetensors", "w") as archive:
        archive.writestr("../../evil", "x")
    for name in ("learned_embeds.bin", "pickle.safetensors", "torch.safetensors"):
        with pytest.raises(InvalidTokenError, match="pickle, which can run any program"):
            read_bytes(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, reason in (("pipe.safetensors", "no regular file"), ("none", "No such file"), (".", "regular|directory")):
        with pytest.raises(InvalidTokenError, match=reason):
            read_bytes(tmp_path / name)


def test_too_much_for_one_file_says_where_else() -> None:
    one = token(metrics={"x": [0.123456] * 15_000})
    with pytest.raises(InvalidTokenError, match="folder"):
        pack([one] * 40)
    assert MAX_HEADER_BYTES < 40 * 15_000 * 8


# -- any bytes at all ---------------------------------------------------------------------------------------------------


def refuses_or_reads(data: bytes) -> None:
    """Either a sentence, or arrays no larger than the file; never another exception."""
    tracemalloc.start()
    try:
        for read in (unpack, unpack_inversion):
            try:
                read(data)
            except InvalidTokenError as error:
                assert str(error).endswith(".") and "\n" not in str(error)
        try:
            _, tensors = parse(data)
        except InvalidTokenError:
            pass
        else:
            # What is accepted here, the library accepts too.
            known = {n for n, t in tensors.items() if t.dtype not in ("BF16",)}
            assert known <= set(safetensors.numpy.load(data)) if len(known) == len(tensors) else True
        assert tracemalloc.get_traced_memory()[1] < 2_000_000 + 40 * len(data)
    except SafetensorError as error:
        raise AssertionError(f"accepted here, refused by the library: {error}") from error
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_never_crash(data: bytes) -> None:
    refuses_or_reads(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
SPECS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "U8", "X9"]) | JSON,
        "shape": st.lists(st.integers(-1, 6) | st.integers(), max_size=4) | JSON,
        "data_offsets": st.lists(st.integers(0, 64) | st.integers(), max_size=3) | JSON,
    }
)
NAMES = st.sampled_from(["token.0", "emb_params", "<x>", "__metadata__", "../x"]) | st.text(max_size=10)


@given(
    st.dictionaries(NAMES, SPECS | JSON, max_size=4),
    st.binary(max_size=80),
    st.none() | st.integers(0, 2**64 - 1),
)
@settings(max_examples=150, deadline=None)
def test_headers_of_any_kind_never_crash_nor_allocate(
    header: dict[str, Any], content: bytes, length: int | None
) -> None:
    refuses_or_reads(raw(json.dumps(header).encode("utf-8", "replace"), content, length))


@given(st.lists(st.dictionaries(st.text(max_size=12), JSON, max_size=4) | JSON, max_size=3) | JSON)
@settings(max_examples=100, deadline=None)
def test_entries_of_any_kind_never_crash(entries: Any) -> None:
    text = json.dumps(entries)
    meta = {"format": "ovam-tokens", "version": "1", "tokens": text}
    meta["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    refuses_or_reads(safetensors.numpy.save({"token.0": token().embedding}, meta))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_changed_byte_of_an_export_passes_unseen(data: st.DataObject) -> None:
    good = pack([token("a", 1), token("b", 2)])
    place = data.draw(st.integers(0, len(good) - 1))
    changed = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    try:
        found = unpack(changed)
    except InvalidTokenError:
        return
    # Only blanks that JSON does not care about may differ.
    assert all(same(a, b) for a, b in zip(found, [token("a", 1), token("b", 2)], strict=True))


@given(
    st.text(min_size=1, max_size=30),
    st.integers(2, 5),
    st.dictionaries(
        st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8), max_size=4
    ),
)
@settings(max_examples=150, deadline=None)
def test_what_is_packed_is_unpacked(name: str, rows: int, metrics: dict[str, Any]) -> None:
    embedding = np.random.default_rng(rows).standard_normal((rows, 6)).astype(np.float32)
    one = token(name, embedding=embedding, metrics=metrics)
    try:
        data = pack([one])
    except InvalidTokenError:
        return
    assert same(unpack(data)[0], one)
