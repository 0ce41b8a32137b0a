"""Safetensors files of strangers, read without trusting a byte: bounded, checked before anything is allocated, never pickled.

The layout (https://github.com/huggingface/safetensors): 8 bytes little-endian length of the header, the header as JSON, then the
tensors' bytes without holes.  Nothing here reads more than the file has or allocates what a header promises: arrays are
views of bytes that are there.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from token_store.contract import InvalidTokenError

#: Largest file read (a bundle of a thousand Stable Diffusion tokens has about 8 MB).
MAX_FILE_BYTES = 64 << 20
#: Longest header read.
MAX_HEADER_BYTES = 4 << 20
#: Most tensors of a file.
MAX_TENSORS = 2000

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file.  ``data`` are its bytes, a view."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    def floats(self) -> np.ndarray:
        """A float32 copy.

        Raises:
            InvalidTokenError: the tensor holds no floating-point numbers.
        """
        if self.dtype not in _FLOATS:
            _refuse(f"a tensor has type {self.dtype}; {', '.join(_FLOATS)} are read")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, which is refused later
            return _FLOATS[self.dtype](self.data).astype(np.float32).reshape(self.shape)


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file that may be a safetensors file.

    Raises:
        InvalidTokenError: no such file, no regular file, too large, or a pickle (which could run code when it is opened).
    """
    try:
        # A pipe or a device must not hang the importer, nor feed it for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidTokenError(f"The file {str(path)!r} cannot be opened: {reason}.") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            _refuse(f"{str(path)!r} is no regular file")
        if path.suffix.lower() in _PICKLED:
            _refuse_pickle(path)
        if status.st_size > MAX_FILE_BYTES:
            _refuse(f"it has {status.st_size} bytes; at most {MAX_FILE_BYTES} are read")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidTokenError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from None
    finally:
        os.close(handle)
    if data.startswith(_PICKLE_MAGIC) and not _header_fits(data):
        _refuse_pickle(path)
    return data


def parse(data: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors by name.

    Raises:
        InvalidTokenError: the bytes are no safetensors file within the bounds above; the sentence says why.
    """
    if len(data) > MAX_FILE_BYTES:
        _refuse(f"it has {len(data)} bytes; at most {MAX_FILE_BYTES} are read")
    if len(data) < 8:
        _refuse(f"it has {len(data)} bytes, fewer than the 8 that every safetensors file begins with")
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER_BYTES:
        _refuse(f"it announces a header of {length} bytes; at most {MAX_HEADER_BYTES} are read")
    if length > len(data) - 8:
        _refuse(f"it announces a header of {length} bytes, but has only {len(data) - 8} more")
    header = strict_json(data[8 : 8 + length], "header")
    if not isinstance(header, dict):
        _refuse("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _refuse("its metadata are not all text")
    if len(header) > MAX_TENSORS:
        _refuse(f"it has {len(header)} tensors; at most {MAX_TENSORS} are read")
    return metadata, _tensors(header, memoryview(data)[8 + length :])


def serialize(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The file of float32 arrays.  Equal input gives equal bytes, which the library's own writer does not promise."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, position = [], 0
    for name, values in tensors.items():
        data = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [position, position + len(data)]}
        parts.append(data)
        position += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8, as the format asks
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def strict_json(text: str | bytes, what: str) -> Any:
    """JSON without repeated keys, NaN, infinite numbers or deep nesting.

    Raises:
        InvalidTokenError: it is something else.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except InvalidTokenError:
        raise
    except RecursionError:
        _refuse(f"its {what} is nested too deeply")
    except ValueError as error:  # bad JSON, bad UTF-8, numbers of thousands of digits
        _refuse(f"its {what} is no valid JSON ({' '.join(str(error).split())[:80]})")


def _tensors(header: Mapping[str, Any], content: memoryview) -> dict[str, Tensor]:
    """Tensors that together fill the content exactly: no holes, no overlap, no byte that nobody checks."""
    found: dict[str, Tensor] = {}
    spans = []
    for name, spec in header.items():
        if not isinstance(spec, dict) or set(spec) != {"dtype", "shape", "data_offsets"}:
            _refuse(f"its tensor {name[:60]!r} is not described by dtype, shape and data_offsets")
        dtype, shape, offsets = spec["dtype"], spec["shape"], spec["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _SIZES:
            _refuse(f"its tensor {name[:60]!r} has the unknown type {str(dtype)[:20]!r}")
        if not _whole(shape) or len(shape) > 8 or not _whole(offsets) or len(offsets) != 2:
            _refuse(f"its tensor {name[:60]!r} has a shape or offsets that are no lists of whole numbers")
        begin, end = offsets
        if not begin <= end <= len(content) or math.prod(shape) * _SIZES[dtype] != end - begin:
            _refuse(f"its tensor {name[:60]!r} does not have the bytes its shape asks for")
        spans.append((begin, end))
        found[name] = Tensor(dtype, tuple(shape), content[begin:end])
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            _refuse("its tensors overlap or leave holes")
        position = end
    if position != len(content):
        _refuse(f"it has {len(content) - position} bytes after its tensors")
    return found


def _whole(values: Any) -> bool:
    # Bounded, so that a product of a few cannot become a number of millions of digits.
    return isinstance(values, list) and len(values) <= 8 and all(type(v) is int and 0 <= v < 1 << 48 for v in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("a key stands twice in its JSON")
    return found


def _no_constant(name: str) -> Any:
    _refuse(f"it holds the number {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(f"it holds the number {text[:20]}, which is too large")
    return value


def _header_fits(data: bytes) -> bool:
    """Whether the first 8 bytes are the length of a header that is there: a pickle's never are."""
    return len(data) >= 8 and struct.unpack_from("<Q", data)[0] <= len(data) - 8


def _refuse(reason: str) -> NoReturn:
    raise InvalidTokenError(f"The file is refused: {reason}.")


def _refuse_pickle(path: Path) -> NoReturn:
    raise InvalidTokenError(
        f"The file {path.name!r} is a pickle, which can run any program when it is opened, and is refused; ask for the "
        ".safetensors form of it, or convert it where you trust it: `safetensors.torch.save_file(torch.load(FILE, "
        "weights_only=True), NEW)`."
    )


def _bfloat16(data: memoryview) -> np.ndarray:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


_FLOATS: dict[str, Callable[[memoryview], np.ndarray]] = {
    "F64": lambda data: np.frombuffer(data, "<f8"),
    "F32": lambda data: np.frombuffer(data, "<f4"),
    "F16": lambda data: np.frombuffer(data, "<f2"),
    "BF16": _bfloat16,
}
#: Bytes a number, of the types that files of embeddings may hold.
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
