"""Small pictures for the report: data URLs, tables and sheets of pictures; curves as SVG."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

#: Height of a tile in pixels.
TILE = 140


def data_url(picture: Image.Image, height: int = TILE) -> str:
    """A WebP data URL of the picture, scaled to ``height`` pixels."""
    width = max(1, round(picture.width * height / picture.height))
    buffer = io.BytesIO()
    picture.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def curve_points(losses: Sequence[float], width: float = 120, height: float = 56) -> str:
    """Points of an SVG polyline of a loss curve, its first value at the top left; "" for fewer than two values."""
    values = np.asarray([v for v in losses if np.isfinite(v)], np.float64)
    if values.size < 2:
        return ""
    low, high = values.min(), values.max()
    spread = high - low if high > low else 1.0
    if values.size > 200:  # a page needs no more points than pixels
        values = values[np.linspace(0, values.size - 1, 200).astype(int)]
    x = np.linspace(0, width, values.size)
    y = height - (values - low) / spread * height
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def table(
    header: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[Image.Image, str]]]], side: int = 150
) -> Image.Image:
    """Rows of captioned pictures under a header, on white: a figure for a page that shows no HTML.

    Args:
        header: one text a column.
        rows: (name, [(picture, caption), ...]); a row may have fewer pictures than the header.
    """
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    left, top, line = 150, 28, side + 22
    page = Image.new("RGB", (left + len(header) * (side + 8), top + len(rows) * line), "white")
    draw = ImageDraw.Draw(page)
    for column, text in enumerate(header):
        draw.text((left + column * (side + 8), 6), text, "black", font)
    for row, (name, cells) in enumerate(rows):
        y = top + row * line
        draw.text((8, y + side // 2 - 10), "\n".join(textwrap.wrap(name, 18)), "black", font)
        for column, (picture, caption) in enumerate(cells):
            fitted = ImageOps.contain(picture, (side, side), Image.Resampling.LANCZOS)
            x = left + column * (side + 8)
            page.paste(fitted, (x + (side - fitted.width) // 2, y + (side - fitted.height) // 2))
            draw.text((x, y + side + 2), caption, "black", small)
    return page


def sheet(pictures: Sequence[Image.Image], columns: int, side: int = 192) -> Image.Image:
    """A contact sheet, each picture fitted into a square of ``side`` pixels."""
    rows = -(-len(pictures) // columns) if pictures else 1
    page = Image.new("RGB", (columns * side, rows * side), (32, 32, 32))
    for i, picture in enumerate(pictures):
        fitted = picture.copy()
        fitted.thumbnail((side - 4, side - 4), Image.Resampling.LANCZOS)
        page.paste(fitted, ((i % columns) * side + 2, (i // columns) * side + 2))
    return page
