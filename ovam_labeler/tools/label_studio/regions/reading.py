"""Reads the mask regions of an annotation, whatever their form.

Label Studio writes a region of a pair ``Brush`` / ``MagicWand`` / ... + ``Labels`` as two results with one id: one without
a label and its twin of type ``labels`` with label and mask.  The twin is read, the other is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.label_studio.regions import bitmask, brush, polygon

_UNLABELLED = ("brush", "magicwand", "bitmask", "polygon")
_READERS = {"rle": brush.read, "imageDataURL": bitmask.read, "points": polygon.read}


@dataclass(frozen=True, slots=True)
class Region:
    """One labelled mask region, not decoded yet.

    Attributes:
        origin: ``manual``, ``prediction`` or ``prediction-changed``.
        size: (height, width) the region says of its image, or None where it says nothing.
        to_name, item: the image tag it lies on, and the place in that tag's list (None where it says nothing).
    """

    id: str
    label: str
    origin: str
    kind: str
    value: Mapping[str, Any]
    size: tuple[int, int] | None
    to_name: str = ""
    item: int | None = None


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
        if kind in _UNLABELLED and name in labelled:
            continue
        texts = value.get(kind) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or _form(value) is None:
            notes.append(f"Region '{name}' of type '{kind}' is no brush, bitmask or polygon and was skipped.")
        elif not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
            notes.append(f"Region '{name}' has no label and was skipped.")
        else:
            origin, index = str(item.get("origin", "manual")), item.get("item_index")
            place = index if isinstance(index, int) and not isinstance(index, bool) else None
            on = str(item.get("to_name") or "")
            regions += [Region(name, text, origin, kind, value, _size(item), on, place) for text in texts]
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
    if form is None:
        raise BadMaskError(f"Region '{region.id}' of '{region.label}' holds no mask.")
    return _READERS[form](region.value, height, width)


def _form(value: Mapping[str, Any]) -> str | None:
    if value.get("closed", True) is False:
        return None
    return next((key for key in _READERS if key in value), None)


def _size(item: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = item.get("original_height"), item.get("original_width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
