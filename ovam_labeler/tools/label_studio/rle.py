"""Label Studio's brush run-length code: RGBA bytes packed as bit blocks (the ``@thi.ng/rle-pack`` format).

Stream, most significant bit first::

    u32  number of words (= width * height * 4)
    u5   word size - 1 (Label Studio: 7)
    u4   x 4: run-length widths - 1 (Label Studio: 2, 3, 7, 15)
    then blocks until the words are complete:
    u1   1 = one value repeated, 0 = literal values
    u2   which run-length width
    u(w) length - 1
    u8   the value (repeated) or ``length`` values (literal)

The mask is the alpha channel.  Editor strokes have soft edges, so a pixel counts from alpha 128 on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovam_labeler.errors import BadMaskError

#: Alpha from which a pixel belongs to the mask; the editor's strokes have soft edges of 6..255.
ALPHA_THRESHOLD = 128

_WIDTHS = (3, 4, 8, 16)
_HEADER_BITS = 32 + 5 + 4 * 4
_LONGEST_RUN = 1 << _WIDTHS[-1]


def encode_mask(mask: np.ndarray) -> list[int]:
    """Encode a mask as Label Studio's editor reads it.

    Args:
        mask: bool (H, W), or any array whose truth is the mask.  Written as 0 / 255 in all four channels: a 0 / 1
            mask would be stored and stay invisible.

    Returns:
        Bytes as a list of ints, for JSON.

    Raises:
        BadMaskError: not two-dimensional, or without pixels.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise BadMaskError(f"A mask must have two dimensions and at least one pixel, not the shape {mask.shape}.")
    flat = np.asarray(mask, dtype=bool).ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(np.append(starts, flat.size)) * 4
    values = np.where(flat[starts], 255, 0)
    lengths, values = _split_long_runs(lengths, values)

    index = np.searchsorted([1 << w for w in _WIDTHS], lengths)
    width = np.asarray(_WIDTHS)[index]
    # One block is 1 flag, 2 width index, `width` length - 1 and 8 value bits: at most 27, so it fits an integer.
    codes = (((((1 << 2) | index) << width) | (lengths - 1)) << 8) | values
    bits = 1 + 2 + width + 8
    codes, bits, longest = codes.astype(np.int32), bits.astype(np.int32), 1 + 2 + _WIDTHS[-1] + 8
    shift = bits[:, None] - 1 - np.arange(longest, dtype=np.int32)[None, :]
    body = ((codes[:, None] >> np.maximum(shift, 0)) & 1).astype(np.uint8)[shift >= 0]
    return np.packbits(np.concatenate((_header(flat.size * 4), body))).tolist()


def decode_mask(rle: Sequence[int] | bytes, height: int, width: int) -> np.ndarray:
    """Decode a brush region.

    Args:
        rle: bytes 0..255 of the region.
        height, width: the image's own size in pixels.  The stream's count is compared with them before anything is
            allocated, so a stream that lies costs nothing.

    Returns:
        bool (height, width): alpha >= :data:`ALPHA_THRESHOLD`.

    Raises:
        BadMaskError: not bytes, truncated, of another size, or not in this format.
    """
    data = _as_bytes(rle)
    if len(data) * 8 < _HEADER_BITS:
        raise BadMaskError(f"The region's RLE has {len(data)} bytes and is too short for its header.")
    count = int.from_bytes(data[:4], "big")
    if count != width * height * 4:
        raise BadMaskError(
            f"The region's RLE says {count} values; an image of {width}x{height} pixels needs {width * height * 4}."
        )
    header = int.from_bytes(data[4:7], "big")
    word = (header >> 19) + 1
    if word != 8:
        raise BadMaskError(f"The region's RLE has words of {word} bits; only 8 are allowed.")
    widths = tuple(((header >> (15 - 4 * i)) & 15) + 1 for i in range(4))
    words = _read_blocks(data, count, widths)
    return words[3::4].reshape(height, width) >= ALPHA_THRESHOLD


def _read_blocks(data: bytes, count: int, widths: tuple[int, ...]) -> np.ndarray:
    """All words of the stream as uint8 (count,)."""
    words = np.zeros(count, dtype=np.uint8)
    end = len(data) * 8
    # Reads past the end see zeros; the position is checked once a block instead of at each field.
    padded = data + bytes(8)
    raw = np.frombuffer(padded, dtype=np.uint8)
    at, done = _HEADER_BITS, 0
    while done < count:
        window = int.from_bytes(padded[at >> 3 : (at >> 3) + 6], "big") << (at & 7)
        flag, width = (window >> 47) & 1, widths[(window >> 45) & 3]
        length = ((window >> (45 - width)) & ((1 << width) - 1)) + 1
        at += 3 + width
        if done + length > count:
            raise BadMaskError(f"The region's RLE holds more values than the {count} it announces.")
        bits = 8 if flag else 8 * length
        if at + bits > end:
            raise BadMaskError(f"The region's RLE is cut off: {done} of {count} values are there.")
        if flag:
            value = (window >> (37 - width)) & 255
            if value:
                words[done : done + length] = value
        else:
            first, offset = at >> 3, at & 7
            words[done : done + length] = (raw[first : first + length] << offset) | (
                raw[first + 1 : first + 1 + length].astype(np.uint16) >> (8 - offset)
            ).astype(np.uint8)
        at += bits
        done += length
    return words


def _as_bytes(rle: Sequence[int] | bytes) -> bytes:
    if not isinstance(rle, list | tuple | bytes | bytearray):
        raise BadMaskError(f"The region's RLE must be a list of bytes, not {type(rle).__name__}.")
    try:
        return bytes(rle)
    except (TypeError, ValueError) as error:
        raise BadMaskError("The region's RLE must be a list of whole numbers from 0 to 255.") from error


def _header(count: int) -> np.ndarray:
    if count >= 1 << 32:
        raise BadMaskError(f"A mask of {count // 4} pixels is too large for Label Studio's format.")
    value = (count << 5) | 7
    for width in _WIDTHS:
        value = (value << 4) | (width - 1)
    return np.array([(value >> (_HEADER_BITS - 1 - i)) & 1 for i in range(_HEADER_BITS)], dtype=np.uint8)


def _split_long_runs(lengths: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs longer than the widest length field become several."""
    parts = -(-lengths // _LONGEST_RUN)
    if parts.max() == 1:
        return lengths, values
    split = np.full(int(parts.sum()), _LONGEST_RUN, dtype=lengths.dtype)
    split[np.cumsum(parts) - 1] = lengths - (parts - 1) * _LONGEST_RUN
    return split, np.repeat(values, parts)
