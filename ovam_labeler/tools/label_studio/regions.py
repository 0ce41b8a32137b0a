"""Reads the mask regions of an annotation: brush (also magic wand), bitmask and polygon.

Label Studio writes a region of a pair ``Brush`` / ``MagicWand`` + ``Labels`` as two results with one id: one without
a label and its twin of type ``labels`` with label and mask.  The twin is read, the other is passed over.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.label_studio.rle import ALPHA_THRESHOLD, decode_mask

_BITMASK_PREFIX = "data:image/png;base64,"
_UNLABELED = ("brush", "magicwand", "bitmask", "polygon")


@dataclass(frozen=True, slots=True)
class Region:
    """One labelled mask region, not decoded yet.

    Attributes:
        origin: ``manual``, ``prediction`` or ``prediction-changed``.
        size: (height, width) the region says of its image, or None where it says nothing.
    """

    id: str
    label: str
    origin: str
    kind: str
    value: Mapping[str, Any]
    size: tuple[int, int] | None


def read_regions(result: object) -> tuple[list[Region], list[str]]:
    """The labelled mask regions of an annotation's ``result`` and one sentence per thing passed over."""
    if not isinstance(result, Sequence) or isinstance(result, str | bytes):
        return [], ["The annotation's result is no list and was passed over."]
    regions: list[Region] = []
    notes: list[str] = []
    items = [item for item in result if isinstance(item, Mapping)]
    labelled = {str(item.get("id")) for item in items if item.get("type") == "labels"}
    if len(items) < len(result):
        notes.append(f"{len(result) - len(items)} entries of the annotation's result are no regions and were skipped.")
    for item in items:
        kind, name, value = str(item.get("type", "")), str(item.get("id", "")), item.get("value")
        if kind in _UNLABELED and name in labelled:
            continue
        texts = value.get(kind) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or _form(value) is None:
            notes.append(f"Region '{name}' of type '{kind}' is no brush, bitmask or polygon and was skipped.")
        elif not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
            notes.append(f"Region '{name}' has no label and was skipped.")
        else:
            origin, size = str(item.get("origin", "manual")), _size(item)
            regions += [Region(name, text, origin, kind, value, size) for text in texts]
    return regions, notes


def region_mask(region: Region, height: int, width: int) -> np.ndarray:
    """The region's mask, bool (height, width), for an upright image of that size.

    Raises:
        BadMaskError: drawn on an image of another size, or undecodable.
    """
    if region.size is not None and region.size != (height, width):
        raise BadMaskError(
            f"Region '{region.id}' of '{region.label}' was drawn on {region.size[1]}x{region.size[0]} pixels; "
            f"the image has {width}x{height}."
        )
    form = _form(region.value)
    if form == "rle":
        return decode_mask(region.value["rle"], height, width)
    if form == "bitmask":
        return _bitmask(region.value["imageDataURL"], height, width)
    return _polygon(region.value["points"], height, width)


def _form(value: Mapping[str, Any]) -> str | None:
    if "rle" in value:
        return "rle"
    if "imageDataURL" in value:
        return "bitmask"
    if "points" in value and value.get("closed", True) is not False:
        return "polygon"
    return None


def _size(item: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = item.get("original_height"), item.get("original_width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _bitmask(url: object, height: int, width: int) -> np.ndarray:
    if not isinstance(url, str) or not url.startswith(_BITMASK_PREFIX):
        raise BadMaskError("The region's imageDataURL must be a base64 PNG.")
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(url[len(_BITMASK_PREFIX) :], validate=True)), formats=["PNG"]
        ) as image:
            if image.size != (width, height):
                raise BadMaskError(
                    f"The region's bitmask has {image.size[0]}x{image.size[1]} pixels; the image has {width}x{height}."
                )
            return np.asarray(image.convert("RGBA"))[..., 3] >= ALPHA_THRESHOLD
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadMaskError("The region's imageDataURL is no readable PNG.") from error


def _polygon(points: object, height: int, width: int) -> np.ndarray:
    """Points are percent of the image's width and height."""
    try:
        corners = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadMaskError("The region's polygon points must be pairs of numbers.") from error
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise BadMaskError("The region's polygon needs at least three points of two finite numbers.")
    pixels = np.clip(corners, -100.0, 200.0) * (width / 100.0, height / 100.0)
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in pixels], fill=1)
    return np.asarray(canvas, dtype=bool)
