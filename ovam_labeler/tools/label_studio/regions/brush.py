"""Brush and magic wand regions: run lengths of the whole picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovam_labeler.tools.label_studio.rle import decode_mask, encode_mask


def read(value: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """bool (height, width).  Raises BadMaskError."""
    return decode_mask(value["rle"], height, width)


def write(mask: np.ndarray) -> dict[str, Any]:
    """Value of a region, without its labels.  ``mask`` bool (H, W) of the image's own size."""
    return {"format": "rle", "rle": encode_mask(mask)}
