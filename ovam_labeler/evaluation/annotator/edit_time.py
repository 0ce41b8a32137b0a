"""Seconds an annotator needs for a mask: looked at, mended, deleted, or drawn from nothing.

Clicks and decisions take the times of the keystroke-level model (Card, Moran and Newell 1980).  Moving the brush along a
border takes a time in proportion to its length over the room for error (the steering law, Accot and Zhai 1997); painting
what lies further inside is steering along a lane as wide as the brush.  Lengths count in pictures' sides and not in pixels
of a screen, so a zoomed picture takes no longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovam_labeler.masks.components import components
from ovam_labeler.truth import dilate

#: A border's length in steps from pixel to pixel, brought to its length as the crow flies, over all directions (Cauchy).
_STEPS = np.pi / 4


@dataclass(frozen=True, slots=True)
class Pace:
    """An annotator's pace, in seconds unless said otherwise.

    Attributes:
        decide, point, press, home: operators M, P, K and H of the keystroke-level model, of an average typist.
        steer: seconds for each unit of length over width.  Assumed: see docs/annotator.md.
        tolerance: room for error on either side of a border, as a share of the picture's shorter side: a mask whose
            border lies within it is accepted as it is.  As wide as the ring that learning ignores.
        brush: width of the brush, as a share of the shorter side.
    """

    decide: float = 1.35
    point: float = 1.1
    press: float = 0.2
    home: float = 0.4
    steer: float = 0.1
    tolerance: float = 0.01
    brush: float = 0.05

    @property
    def click(self) -> float:
        return self.point + self.press

    @property
    def scene(self) -> float:
        """Taking in a picture, and Submit; the same with and without proposals."""
        return self.decide + self.click

    @property
    def look(self) -> float:
        """Deciding whether a proposal is good enough."""
        return self.decide

    @property
    def delete(self) -> float:
        """Clicking a region and pressing Delete; the hand goes to the keyboard and back."""
        return self.click + 2 * self.home + self.press


@dataclass(frozen=True, slots=True)
class Work:
    """What the hand has to do for one mask.

    Attributes:
        tools: brush and eraser, as far as they are needed.
        strokes: places the pointer is brought to.
        trace: length of border to follow, over the room for error (both sides of it).
        fill: area away from the border, in squares of the brush.
    """

    tools: int
    strokes: int
    trace: float
    fill: float


def draw_work(truth: np.ndarray, pace: Pace) -> Work:
    """Drawing a mask from nothing.  ``truth``: bool (H, W), not empty."""
    return _work(truth, truth, np.zeros_like(truth), np.ones_like(truth), pace)


def edit_work(mask: np.ndarray, truth: np.ndarray, pace: Pace) -> Work | None:
    """Mending ``mask``; None where all that is wrong lies within the tolerance.

    A connected wrong part counts where any of it is outside the tolerance; then the true border beside it is followed,
    and what is left of it is filled or erased.

    Args:
        mask, truth: bool (H, W), neither empty.
    """
    wrong = _serious(mask ^ truth, truth, pace)
    if not wrong.any():
        return None
    near = dilate(wrong, _pixels(truth, pace.tolerance))
    return _work(truth, wrong & truth, wrong & ~truth, near, pace)


def draw_seconds(work: Work, pace: Pace) -> float:
    """A label is chosen, then it is drawn."""
    return pace.decide + pace.click + _hand(work, pace)


def edit_seconds(work: Work, pace: Pace) -> float:
    """A region is clicked, tools are chosen, then it is mended; that it has to be was decided when it was looked at."""
    return pace.click + work.tools * pace.click + _hand(work, pace)


def _hand(work: Work, pace: Pace) -> float:
    return work.strokes * pace.click + pace.steer * (work.trace + work.fill)


def _work(truth: np.ndarray, missing: np.ndarray, extra: np.ndarray, near: np.ndarray, pace: Pace) -> Work:
    """Args: near: bool (H, W), where the true border has to be followed."""
    side = min(truth.shape)
    brush = _pixels(truth, pace.brush)
    away = (missing & ~dilate(~truth, brush)) | (extra & ~dilate(truth, brush))
    return Work(
        tools=int(missing.any()) + int(extra.any()),
        strokes=components(missing)[1] + components(extra)[1],
        trace=_border(truth, near) / (2 * pace.tolerance * side),
        fill=float(away.sum()) / (pace.brush * side) ** 2,
    )


def _serious(wrong: np.ndarray, truth: np.ndarray, pace: Pace) -> np.ndarray:
    """The connected wrong parts that reach out of the tolerance."""
    width = _pixels(truth, pace.tolerance)
    forgiven = dilate(truth, width) & dilate(~truth, width)
    labels, count = components(wrong)
    reach = np.bincount(labels[~forgiven].ravel(), minlength=count + 1) > 0
    reach[0] = False
    found: np.ndarray = reach[labels]
    return found


def _border(truth: np.ndarray, near: np.ndarray) -> float:
    """Length in pixels of the border of ``truth`` that lies in ``near``; the picture's edge needs no care."""
    steps = 0
    for axis in (0, 1):
        here, next_ = (np.take(truth, range(a, truth.shape[axis] - 1 + a), axis) for a in (0, 1))
        care = np.take(near, range(truth.shape[axis] - 1), axis) | np.take(near, range(1, truth.shape[axis]), axis)
        steps += int(((here != next_) & care).sum())
    return _STEPS * steps


def _pixels(truth: np.ndarray, share: float) -> int:
    return max(1, round(share * min(truth.shape)))
