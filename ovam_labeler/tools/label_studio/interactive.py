"""Reads what an annotator clicked with smart tools: points and boxes, by picture and label."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ovam_labeler.masks.picking import Box, Point

#: Result types of a point and of a box, with labels of their own or of a ``Labels`` tag.
_POINTS = ("keypointlabels", "keypoint")
_BOXES = ("rectanglelabels", "rectangle")

#: Most clicks of one request that are read.
MAX_CLICKS = 200


@dataclass(frozen=True, slots=True)
class Clicks:
    """What was clicked on one picture for one label.

    Attributes:
        to_name, item: of the picture, as regions name it.
        digest: tells these clicks from others, so that a suggestion never takes the id of a region that is there.
    """

    to_name: str
    item: int | None
    label: str
    points: tuple[Point, ...]
    boxes: tuple[Box, ...]
    digest: str


def read_clicks(context: Mapping[str, Any]) -> tuple[list[Clicks], list[str]]:
    """The clicks of a request's ``params.context``, grouped; and one sentence per entry passed over."""
    result = context.get("result")
    groups: dict[tuple[str, int | None, str], list[Mapping[str, Any]]] = {}
    notes: list[str] = []
    entries = result if isinstance(result, list) else []
    if len(entries) > MAX_CLICKS:
        notes.append(f"The request has {len(entries)} clicks; the last {MAX_CLICKS} are used.")
    for entry in entries[-MAX_CLICKS:]:
        label = _label(entry)
        if label is None:
            kind = str(entry.get("type")) if isinstance(entry, Mapping) else type(entry).__name__
            notes.append(f"A smart region of type '{kind[:40]}' is no point or box with a label, and is passed over.")
            continue
        item = entry.get("item_index")
        place = item if isinstance(item, int) and not isinstance(item, bool) else None
        groups.setdefault((str(entry.get("to_name") or ""), place, label), []).append(entry)
    return [_clicks(*key, entries) for key, entries in groups.items()], notes


def _clicks(to_name: str, item: int | None, label: str, entries: list[Mapping[str, Any]]) -> Clicks:
    points = tuple(_point(e) for e in entries if e["type"] in _POINTS)
    boxes = tuple(_box(e) for e in entries if e["type"] in _BOXES)
    text = json.dumps([[e.get("id"), e["type"]] for e in entries], default=str) + repr((points, boxes))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Clicks(to_name, item, label, points, boxes, digest)


def _label(entry: object) -> str | None:
    """The label of a point or box that can be used; None for anything else."""
    value = entry.get("value") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(value, Mapping):
        return None
    kind = entry.get("type")
    needed = ("x", "y") if kind in _POINTS else ("x", "y", "width", "height") if kind in _BOXES else None
    if needed is None or not all(_number(value.get(key)) for key in needed):
        return None
    texts = value.get(kind) or value.get("labels")
    if not isinstance(texts, list) or not texts or not isinstance(texts[0], str) or not texts[0]:
        return None
    return texts[0]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _positive(entry: Mapping[str, Any]) -> bool:
    return entry.get("is_positive") is not False


def _point(entry: Mapping[str, Any]) -> Point:
    return Point(entry["value"]["x"] / 100, entry["value"]["y"] / 100, _positive(entry))


def _box(entry: Mapping[str, Any]) -> Box:
    """Label Studio turns a rectangle by ``rotation`` degrees clockwise round its top left corner, in pixels."""
    value = entry["value"]
    x, y, wide, high = (value[key] / 100 for key in ("x", "y", "width", "height"))
    rotation: Any = value.get("rotation")
    height: Any = entry.get("original_height")
    width: Any = entry.get("original_width")
    angle = math.radians(rotation) if _number(rotation) else 0.0
    aspect = height / width if _number(height) and _number(width) and height > 0 and width > 0 else 1.0
    cos, sin = math.cos(angle), math.sin(angle)
    corners = tuple(
        (x + dx * cos - dy * aspect * sin, y + dx / aspect * sin + dy * cos)
        for dx, dy in ((0.0, 0.0), (wide, 0.0), (wide, high), (0.0, high))
    )
    return Box(corners, _positive(entry))
