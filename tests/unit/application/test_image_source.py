"""Every kind of image the work item names, good and bad, through the real decoder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovam_labeler.errors import BadImageError
from ovam_labeler.image_source import encode_png, load_image, read_limited

RED = (200, 30, 40)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_allowed_formats(kind: str) -> None:
    data = encoded(Image.new("RGB", (7, 5), RED), kind)
    image = load_image(data)
    assert image.pixels.shape == (5, 7, 3)
    assert image.pixels.dtype == np.uint8
    assert np.abs(image.pixels.astype(int) - RED).max() < 12
    assert image.sha256 == hashlib.sha256(data).hexdigest()


def test_path_stream_and_bytes_agree(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (3, 2), RED), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, path, str(path), io.BytesIO(data)):
        assert load_image(source).sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PDF", "EPS"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(BadImageError, match="allowed are PNG, JPEG"):
        load_image(encoded(Image.new("RGB", (16, 16), RED), kind))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 4000]
)
def test_no_image_is_one_sentence(data: bytes) -> None:
    with pytest.raises(BadImageError) as caught:
        load_image(data)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadImageError):
        load_image(data[: len(data) // 2])


def test_corrupt_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        data = bytearray(encoded(noise, kind))
        for _ in range(40):
            broken = bytearray(data)
            for at in rng.integers(8, len(data), 6):
                broken[at] = int(rng.integers(0, 256))
            with contextlib.suppress(BadImageError):
                assert load_image(bytes(broken)).pixels.dtype == np.uint8


def test_bomb_is_refused_before_decoding() -> None:
    for width, height in ((40_000, 40_000), (2_000_000_000, 1), (60_000, 2_000)):
        with pytest.raises(BadImageError, match="too large|at most"):
            load_image(png_header(width, height))


def test_pixel_and_byte_limits() -> None:
    data = encoded(Image.new("RGB", (20, 10), RED), "PNG")
    assert load_image(data, max_pixels=200).width == 20
    with pytest.raises(BadImageError, match="20x10 = 200 pixels; at most 199"):
        load_image(data, max_pixels=199)
    with pytest.raises(BadImageError, match="larger than 10 bytes"):
        load_image(data, max_bytes=10)


def test_read_limited_stops_reading() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            assert size > 0
            self.taken += size
            return b"x" * size

    stream = Endless()
    with pytest.raises(BadImageError):
        read_limited(stream, 5_000_000)
    assert stream.taken <= 5_000_001
    assert read_limited(io.BytesIO(b"abc"), 3) == b"abc"


def test_eight_thousand_pixels() -> None:
    data = encoded(Image.new("L", (8000, 6000), 77), "PNG")
    image = load_image(data)
    assert (image.height, image.width) == (6000, 8000)
    assert (image.pixels[::500, ::500] == 77).all()


def test_one_pixel() -> None:
    assert load_image(encoded(Image.new("RGB", (1, 1), RED), "PNG")).pixels.tolist() == [[list(RED)]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = load_image(encoded(Image.fromarray(values), kind)).pixels
    assert pixels.min() == 0 and pixels.max() == 255
    assert np.abs(pixels[:, :, 0].astype(int) - np.rint(values / 257).astype(int)).max() <= 1


def test_thirty_two_bit_integers_and_floats() -> None:
    integers = np.array([[0, 100_000], [50_000, 200_000]], dtype=np.int32)
    assert load_image(encoded(Image.fromarray(integers), "TIFF")).pixels[:, :, 0].tolist() == [[0, 128], [64, 255]]
    floats = np.array([[0.0, 0.5], [1.0, np.nan]], dtype=np.float32)
    assert load_image(encoded(Image.fromarray(floats), "TIFF")).pixels[:, :, 0].tolist() == [[0, 128], [255, 0]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_has_the_right_colours(kind: str) -> None:
    image = Image.new("RGB", (32, 32), (250, 10, 10)).convert("CMYK")
    pixels = load_image(encoded(image, kind)).pixels
    assert pixels[16, 16, 0] > 200
    assert pixels[16, 16, 1] < 60


def test_palette_with_transparency_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    pixels = load_image(encoded(image, "PNG", transparency=1)).pixels
    assert (pixels == 255).all()
    assert load_image(encoded(image, "PNG")).pixels[0, 0].tolist() == [255, 0, 0]


def test_alpha_is_composited_on_white() -> None:
    half = load_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 127)), "PNG")).pixels
    assert np.abs(half.astype(int) - 128).max() <= 1
    grey = load_image(encoded(Image.new("LA", (2, 2), (10, 0)), "PNG")).pixels
    assert (grey == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "LAB"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (4, 4), (255, 255, 255))
    image = image.convert(mode) if mode != "LAB" else Image.new("LAB", (4, 4), (255, 128, 128))
    # LZW: Pillow 12 cannot read back the uncompressed YCbCr it writes.
    assert load_image(encoded(image, "TIFF", compression="tiff_lzw")).pixels.shape == (4, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((8, 16, 3), dtype=np.uint8)
    upright[:, :8, 0] = 255
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    undo |= {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
    undo |= {8: Image.Transpose.ROTATE_270}
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (load_image(encoded(stored, "PNG", exif=exif)).pixels == upright).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(load_image(data).pixels[0, 0].astype(int) - RED).max() < 5


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="cannot be read"):
        load_image(tmp_path / "none.png")
    with pytest.raises(BadImageError, match="cannot be read"):
        load_image(tmp_path)


def test_png_round_trip_is_exact_and_deterministic() -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (9, 11, 3), dtype=np.uint8)
    assert encode_png(pixels) == encode_png(pixels.copy())
    assert (load_image(encode_png(pixels)).pixels == pixels).all()
