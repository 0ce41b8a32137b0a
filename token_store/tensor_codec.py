"""Arrays as bytes and back: embeddings and masks, as safetensors.  Bytes read are checked before anything is allocated.

An embedding is one F32 tensor ``embedding`` of shape (n, E).  A correction's mask pair is two U8 tensors ``mask`` and
``ignore``, each the zlib stream of the row-major bits of an (H, W) mask, eight pixels a byte.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from token_store.contract import InvalidTokenError, InvalidValueError, StoreError

#: Longest safetensors header read; ours have about 100 bytes.
MAX_HEADER_BYTES = 4096
#: Most numbers an embedding may hold (16 MiB).
MAX_EMBEDDING_NUMBERS = 1 << 22
#: Most pixels a mask may have.
MAX_MASK_PIXELS = 1 << 27


def check_embedding(embedding: Any) -> np.ndarray:
    """The embedding as a contiguous (n >= 2, E >= 1) finite float32 array.

    Raises:
        InvalidTokenError: anything else.
    """
    if not isinstance(embedding, np.ndarray):
        raise InvalidTokenError(f"embedding must be a numpy array, not {type(embedding).__name__}.")
    if embedding.dtype != np.float32:
        raise InvalidTokenError(f"embedding has type {embedding.dtype}; float32 is needed.")
    if embedding.ndim != 2 or embedding.shape[0] < 2 or embedding.shape[1] < 1:
        raise InvalidTokenError(f"embedding has shape {embedding.shape}; (n, E) with n >= 2 and E >= 1 is needed.")
    if embedding.size > MAX_EMBEDDING_NUMBERS:
        raise InvalidTokenError(f"embedding has {embedding.size} numbers; at most {MAX_EMBEDDING_NUMBERS} are allowed.")
    if not np.isfinite(embedding).all():
        raise InvalidTokenError("embedding holds NaN or infinite numbers; all must be finite.")
    return np.ascontiguousarray(embedding)


def encode_embedding(embedding: np.ndarray) -> tuple[bytes, str]:
    """(safetensors bytes, their sha256 in hex) of an (n >= 2, E) finite float32 array.

    Raises:
        InvalidTokenError: the array is something else.
    """
    data = safetensors.numpy.save({"embedding": check_embedding(embedding)})
    return data, hashlib.sha256(data).hexdigest()


def decode_embedding(data: bytes, sha256: str) -> np.ndarray:
    """The (n, E) float32 array of stored bytes.

    Raises:
        InvalidTokenError: the bytes do not have this sha256, or are no embedding.
    """
    if len(data) > 8 + MAX_HEADER_BYTES + 4 * MAX_EMBEDDING_NUMBERS:
        raise InvalidTokenError(f"embedding has {len(data)} bytes, more than any embedding may have.")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InvalidTokenError("embedding does not match its sha256: the stored bytes were changed or damaged.")
    try:
        header = _header(data)
        if set(header) != {"embedding"}:
            raise ValueError("exactly one tensor named 'embedding' is needed")
        _shape(header["embedding"], "F32", 2, MAX_EMBEDDING_NUMBERS)
        embedding = safetensors.numpy.load(data)["embedding"]
    except (ValueError, SafetensorError) as error:
        raise InvalidTokenError(f"embedding is no valid safetensors: {error}.") from error
    return check_embedding(embedding.copy())


def encode_masks(mask: np.ndarray, ignore: np.ndarray) -> tuple[bytes, str]:
    """(bytes, their sha256 in hex) of two (H, W) bool arrays of one size.

    Raises:
        InvalidValueError: another type or shape, differing sizes, too many pixels.
    """
    for name, array in (("mask", mask), ("ignore", ignore)):
        if not isinstance(array, np.ndarray) or array.dtype != np.bool_ or array.ndim != 2 or array.size == 0:
            found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InvalidValueError(f"{name} must be a (H, W) bool array with at least one pixel, not {found}.")
    if mask.shape != ignore.shape:
        raise InvalidValueError(f"mask has shape {mask.shape} but ignore has {ignore.shape}; they must be equal.")
    if mask.size > MAX_MASK_PIXELS:
        raise InvalidValueError(f"mask has {mask.size} pixels; at most {MAX_MASK_PIXELS} are allowed.")
    packed = {
        name: np.frombuffer(zlib.compress(np.packbits(array).tobytes()), np.uint8)
        for name, array in (("mask", mask), ("ignore", ignore))
    }
    data = safetensors.numpy.save(packed)
    return data, hashlib.sha256(data).hexdigest()


def decode_masks(data: bytes, sha256: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The (mask, ignore) pair, each (height, width) bool.

    Raises:
        StoreError: the bytes do not have this sha256, or do not hold exactly height x width pixels.
    """
    if height < 1 or width < 1 or height * width > MAX_MASK_PIXELS:
        raise StoreError(f"mask of {width} x {height} pixels is refused; 1 to {MAX_MASK_PIXELS} pixels are allowed.")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoreError("mask does not match its sha256: the stored bytes were changed or damaged.")
    try:
        header = _header(data)
        if set(header) != {"mask", "ignore"}:
            raise ValueError("exactly the tensors 'mask' and 'ignore' are needed")
        for spec in header.values():
            _shape(spec, "U8", 1, len(data))
        packed = safetensors.numpy.load(data)
        return _unpack(packed["mask"], height, width), _unpack(packed["ignore"], height, width)
    except (ValueError, SafetensorError, zlib.error) as error:
        raise StoreError(f"mask is no valid mask pair of {width} x {height} pixels: {error}.") from error


def _unpack(stream: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bits of a zlib stream that must hold exactly height x width of them; more is never inflated."""
    expected = (height * width + 7) // 8
    inflate = zlib.decompressobj()
    bits = inflate.decompress(stream.tobytes(), expected + 1)
    if len(bits) != expected or not inflate.eof or inflate.unused_data:
        raise ValueError(f"the stream does not hold exactly {expected} bytes")
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=height * width).reshape(height, width).view(np.bool_)


def _header(data: bytes) -> dict[str, Any]:
    """Tensors' specs of safetensors bytes, the header's size bounded before it is parsed."""
    if len(data) < 8:
        raise ValueError("shorter than 8 bytes")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"header of {size} bytes; at most {MAX_HEADER_BYTES} and no more than the file are allowed")
    try:
        header = json.loads(data[8 : 8 + size])
    except RecursionError:
        raise ValueError("header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("header is no object")
    header.pop("__metadata__", None)
    return header


def _shape(spec: Any, dtype: str, dimensions: int, limit: int) -> None:
    """Refuse a tensor spec of another type, other dimensions or more than ``limit`` numbers."""
    shape = spec.get("shape") if isinstance(spec, dict) else None
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("tensor without a shape")
    if spec.get("dtype") != dtype or len(shape) != dimensions or math.prod(shape) > limit:
        raise ValueError(f"tensor {spec.get('dtype')} {shape}; {dtype} with {dimensions} dimensions is needed")
