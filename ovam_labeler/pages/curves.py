"""Loss curves as points of an SVG polyline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ovam_labeler.pages.figures import number, numbers

#: A page needs no more points than pixels.
_MOST_POINTS = 240


@dataclass(frozen=True, slots=True)
class Curve:
    """A loss curve in a box of ``width`` x ``height``, its first epoch at the left, its highest loss at the top.

    Attributes:
        points: of a polyline.
        best: (x, y) of the epoch whose embedding was kept.
        first, last, lowest, highest: losses.
    """

    points: str
    width: int
    height: int
    epochs: int
    best_epoch: int
    best: tuple[float, float]
    first: float
    last: float
    lowest: float
    highest: float


def loss_curve(metrics: Mapping[str, Any], width: int, height: int) -> Curve | None:
    """From a version's ``losses``; None for fewer than two finite values."""
    losses = numbers(metrics.get("losses"))
    if len(losses) < 2:
        return None
    low, high = min(losses), max(losses)
    spread = (high - low) or 1.0

    def place(epoch: int) -> tuple[float, float]:
        return (epoch / (len(losses) - 1) * width, (high - losses[epoch]) / spread * height)

    count = min(len(losses), _MOST_POINTS)
    shown = sorted({round(i * (len(losses) - 1) / (count - 1)) for i in range(count)})
    kept = number(metrics.get("best_epoch"))
    # Without a usable record, the epoch of the lowest loss is the one that was kept.
    best = int(kept) if kept is not None and 0 <= kept < len(losses) else losses.index(low)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, shown))
    return Curve(points, width, height, len(losses), best, place(best), losses[0], losses[-1], low, high)
