"""Transform-coded queries: the smallest stored form, decoded to 8-bit blocks when a capture is opened.

Neighbouring pixels and groups of steps are nearly alike, so cosine transforms over the groups and over small squares of
pixels leave few coefficients that matter.  They are rounded to one step size a layer (its queries' root mean square times a
factor that all layers share), and what remains is written band by band, low bytes before high ones, through zlib's Huffman
coder with run lengths.  The factor is the smallest one that keeps the image within its bytes.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from backends.attention.stored import StoredQueries, join_steps, pack_step
from backends.contract import BackendError

#: Largest side of the squares of pixels that are transformed together.
_SQUARE = 8
#: Bounds of the factor, in root mean squares: below the finest, 8 bits a number would be as good.
_FINEST, _COARSEST, _HALVINGS = 0.02, 8.0, 8
#: Images over so many bytes are tried on every so-manieth square.
_SMALL, _PART = 1 << 20, 8
_LEVEL = 6


def encode(layers: Sequence[StoredQueries], bits: float) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Bytes by layer name and the entries that describe them.

    Args:
        layers: floating queries.
        bits: at most, for each pixel and channel, over all groups of steps together and on the mean of the layers.
    """
    bands = [_transformed(layer) for layer in layers]
    sizes = [max(float(b.square().mean().sqrt()), 1e-20) for b in bands]
    allowed = bits / 8 * sum(y.pixels * y.heads * y.head_size for y in layers)

    def coded(factor: float, part: int = 1) -> list[bytes]:
        return [_pack(b[..., ::part], factor * size) for b, size in zip(bands, sizes, strict=True)]

    # Sought on a part of the squares, then taken up until the whole fits.
    part = _PART if allowed > _SMALL else 1
    low, high = math.log(_FINEST), math.log(_COARSEST)
    if sum(map(len, coded(_FINEST, part))) * part > allowed:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if sum(map(len, coded(math.exp(middle), part))) * part <= allowed:
                high = middle
            else:
                low = middle
        factor = math.exp(high)
    else:
        factor = _FINEST
    best = coded(factor)
    while sum(map(len, best)) > allowed and factor < 1e3:
        factor *= 1.04
        best = coded(factor)
    tensors, entries = {}, []
    for layer, size, data in zip(layers, sizes, best, strict=True):
        tensors[layer.name] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        entries.append({**layer.describe(), "form": "coded", "head_size": layer.head_size, "step": factor * size})
    return tensors, entries


def decode(data: torch.Tensor, entry: Mapping[str, Any]) -> StoredQueries:
    """The 8-bit blocks of one layer.

    Raises:
        BackendError: the bytes are damaged or of another shape.
    """
    heads, height, width = int(entry["heads"]), int(entry["height"]), int(entry["width"])
    size, counts = int(entry["head_size"]), [int(c) for c in entry["counts"]]
    number = len(counts) * heads * size * height * width
    try:
        planes = np.frombuffer(zlib.decompress(data.cpu().numpy().tobytes()), np.uint8)
    except zlib.error as error:
        raise BackendError(f"The coded queries of layer {entry['name']!r} are damaged: {error}.") from error
    if planes.size != 2 * number:
        raise BackendError(f"The coded queries of layer {entry['name']!r} hold {planes.size} bytes, not {2 * number}.")
    folded = planes[:number].astype(np.int32) | (planes[number:].astype(np.int32) << 8)
    values = torch.from_numpy(np.where(folded & 1, -((folded + 1) >> 1), folded >> 1).astype(np.float32))
    values *= float(entry["step"])
    queries = _restored(values, len(counts), heads, size, height, width)
    steps = [pack_step(step, torch.int8) for step in queries]
    found = join_steps(str(entry["name"]), (height, width), float(entry["scale"]), steps, counts)
    return found.to(data.device)


@lru_cache(maxsize=32)
def _cosines(n: int) -> torch.Tensor:
    """(n, n) orthonormal cosine transform (DCT-II), lowest frequency first."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def _side(n: int) -> int:
    """Largest divisor of ``n`` that is no more than the square's side."""
    return next(s for s in range(min(_SQUARE, n), 0, -1) if n % s == 0)


def _transformed(layer: StoredQueries) -> torch.Tensor:
    """(groups, u, v, heads, d_head, squares): coefficients, those of one kind together."""
    values = torch.stack([s.transpose(1, 2) for s in layer.plain_steps()])
    a, b = _side(layer.height), _side(layer.width)
    shape = (layer.steps, layer.heads, layer.head_size, layer.height // a, a, layer.width // b, b)
    values = torch.einsum("kg,ghcyaxb->khcyaxb", _cosines(layer.steps), values.reshape(shape))
    values = torch.einsum("ua,khcyaxb->khcyuxb", _cosines(a), values)
    values = torch.einsum("vb,khcyuxb->khcyuxv", _cosines(b), values)
    return values.permute(0, 4, 6, 1, 2, 3, 5).reshape(layer.steps, a, b, -1)


def _restored(flat: torch.Tensor, steps: int, heads: int, size: int, height: int, width: int) -> torch.Tensor:
    """(groups, heads, pixels, d_head) from the coefficients: the inverse of :func:`_transformed`."""
    a, b = _side(height), _side(width)
    values = flat.reshape(steps, a, b, heads, size, height // a, width // b).permute(0, 3, 4, 5, 1, 6, 2)
    values = torch.einsum("vb,khcyuxv->khcyuxb", _cosines(b), values)
    values = torch.einsum("ua,khcyuxb->khcyaxb", _cosines(a), values)
    values = torch.einsum("kg,khcyaxb->ghcyaxb", _cosines(steps), values)
    return values.reshape(steps, heads, size, height * width).transpose(2, 3)


def _pack(bands: torch.Tensor, step: float) -> bytes:
    """Rounded coefficients, signs folded (0, -1, 1, -2, ...), as a plane of low and one of high bytes, compressed."""
    numbers = torch.round(bands / step).clamp_(-32000, 32000).to(torch.int32)
    folded = torch.where(numbers < 0, -2 * numbers - 1, 2 * numbers).numpy().astype(np.uint16).reshape(-1)
    packer = zlib.compressobj(_LEVEL, strategy=zlib.Z_RLE)
    low = packer.compress((folded & 255).astype(np.uint8).tobytes())
    return low + packer.compress((folded >> 8).astype(np.uint8).tobytes()) + packer.flush()
