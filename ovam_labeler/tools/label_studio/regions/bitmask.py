"""Bitmask regions: a PNG of the picture's size whose alpha is the mask."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.label_studio.rle import ALPHA_THRESHOLD

_PREFIX = "data:image/png;base64,"


def read(value: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """bool (height, width).

    Raises:
        BadMaskError: no PNG, or of another size; its header is compared before anything is decoded.
    """
    url = value["imageDataURL"]
    if not isinstance(url, str) or not url.startswith(_PREFIX):
        raise BadMaskError("The region's imageDataURL must be a base64 PNG.")
    try:
        data = base64.b64decode(url[len(_PREFIX) :], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (width, height):
                raise BadMaskError(
                    f"The region's bitmask has {image.size[0]}x{image.size[1]} pixels; the image has {width}x{height}."
                )
            return np.asarray(image.convert("RGBA").getchannel("A")) >= ALPHA_THRESHOLD
    except Image.DecompressionBombError as error:
        raise BadMaskError("The region's bitmask is far larger than any image that is read.") from error
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadMaskError("The region's imageDataURL is no readable PNG.") from error


def write(mask: np.ndarray) -> dict[str, Any]:
    """Value of a region, without its labels.  ``mask`` bool (H, W) of the image's own size."""
    alpha = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    image = Image.merge("RGBA", (alpha, alpha, alpha, alpha))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return {"imageDataURL": _PREFIX + base64.b64encode(buffer.getvalue()).decode("ascii")}
