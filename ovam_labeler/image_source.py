"""Image bytes -> upright 8-bit sRGB pixels, refused early and in one sentence when they cannot be read.

The file's format is taken from its content, never from its name, and must be on the allow-list.  Its size in pixels is
read from the header and bounded before anything is decoded, so a decompression bomb costs nothing.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import BadImageError
from ovam_labeler.settings import Settings

#: Formats that are read, as Pillow names them.  Phones' MPO files are opened as the JPEG they start with.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_NAMES = "PNG, JPEG, WebP, BMP, TIFF and GIF"

#: Bounds where no settings are given: the defaults of ``OVAM_MAX_IMAGE_PIXELS`` and ``OVAM_MAX_IMAGE_BYTES``.
MAX_PIXELS = int(Settings.model_fields["max_image_pixels"].default)
MAX_BYTES = int(Settings.model_fields["max_image_bytes"].default)

_CHUNK = 1 << 20


def read_limited(stream: IO[bytes], max_bytes: int) -> bytes:
    """Read a stream to its end, but never more than the bound into memory.

    Raises:
        BadImageError: the stream holds more than ``max_bytes`` bytes.
    """
    chunks: list[bytes] = []
    left = max_bytes
    while chunk := stream.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise BadImageError(
                f"The image file is larger than {max_bytes} bytes, the most allowed (OVAM_MAX_IMAGE_BYTES)."
            )
        chunks.append(chunk)
    return b"".join(chunks)


def load_image(
    source: bytes | str | Path | IO[bytes],
    settings: Settings | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> LoadedImage:
    """Load an image from bytes, a file's path or an open binary file.

    EXIF orientation is applied; 16-bit is scaled to 8; alpha is composited on white; of an animation the first frame
    counts.  The identity (``sha256``) is over the file's bytes as they came.  ``settings`` give the bounds where they
    are passed.

    Raises:
        BadImageError: no such file, not an image of an allowed format, truncated or corrupt, or out of bounds.
    """
    if settings is not None:
        max_pixels, max_bytes = settings.max_image_pixels, settings.max_image_bytes
    data = _bytes_of(source, max_bytes)
    if not data:
        raise BadImageError("The image file is empty.")
    with warnings.catch_warnings():
        # Our own bound decides; Pillow's warning at a lower one would only be noise, and odd EXIF is no error.
        warnings.simplefilter("ignore")
        pixels = _decode(data, max_pixels)
    return LoadedImage(pixels, hashlib.sha256(data).hexdigest())


def from_pillow(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """An image that came decoded, made as :func:`load_image` makes one.

    There is no file whose bytes could be its identity, so that is over size and upright pixels: the same picture has
    another identity than under :func:`load_image`.

    Raises:
        BadImageError: out of bounds, or pixels that cannot be read.
    """
    width, height = image.size
    if width < 1 or height < 1 or width * height > max_pixels:
        raise BadImageError(
            f"The image has {width}x{height} pixels; 1 to {max_pixels} in all are allowed (OVAM_MAX_IMAGE_PIXELS)."
        )
    try:
        pixels = np.ascontiguousarray(_rgb(_upright(image)))
    except Exception as error:
        raise BadImageError(f"The image is truncated or corrupt: {_sentence(error)}.") from error
    head = f"pixels {pixels.shape[0]} {pixels.shape[1]}\0".encode()
    return LoadedImage(pixels, hashlib.sha256(head + pixels.tobytes()).hexdigest())


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of a uint8 (H, W, 3) or (H, W) image: equal pixels give equal bytes (no time stamp, fixed level)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _bytes_of(source: bytes | str | Path | IO[bytes], max_bytes: int) -> bytes:
    if isinstance(source, bytes):
        return read_limited(io.BytesIO(source), max_bytes)
    if isinstance(source, str | Path):
        try:
            with open(source, "rb") as file:
                return read_limited(file, max_bytes)
        except OSError as error:
            raise BadImageError(f"The image file '{source}' cannot be read: {error.strerror or error}.") from error
    return read_limited(source, max_bytes)


def _decode(data: bytes, max_pixels: int) -> np.ndarray:
    image = _open(data)
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImageError(f"The image is {width}x{height} pixels; at least 1x1 is needed.")
    if width * height > max_pixels:
        raise BadImageError(
            f"The image has {width}x{height} = {width * height} pixels; at most {max_pixels} are allowed (OVAM_MAX_IMAGE_PIXELS)."
        )
    # Decoders raise whatever they like on hostile bytes (OSError, SyntaxError, ValueError, struct.error, ...).
    try:
        image.seek(0)
        image.load()
        return _rgb(_upright(image))
    except MemoryError as error:
        raise BadImageError(f"The image of {width}x{height} pixels does not fit into memory.") from error
    except Exception as error:
        raise BadImageError(f"The {image.format} image is truncated or corrupt: {_sentence(error)}.") from error


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImageError(f"The image is too large: {_sentence(error)}.") from error
    except Exception as error:
        raise BadImageError(f"The file is no image that can be read; allowed are {_NAMES}.") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image  # Damaged EXIF says nothing of the pixels, which were decoded without error.


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of any Pillow mode."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_eight_bits(np.asarray(image), image.mode)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "CMYK":
        # Pillow has already turned Adobe's inverted JPEG inks round; what is left is plain CMYK.
        image = image.convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _to_eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale single-channel integers or floats of more than 8 bits to 0..255.

    ``I;16`` and integers up to 65535 in ``I`` (how Pillow gives 16-bit PNG) span 16 bits, floats within 0..1 span that,
    and anything else its own range.
    """
    values = values.astype(np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255 and not mode.startswith("I;16"):
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _sentence(error: Exception) -> str:
    text = str(error).strip().rstrip(".") or type(error).__name__
    return text.splitlines()[0][:200]
