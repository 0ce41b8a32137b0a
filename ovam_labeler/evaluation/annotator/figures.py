"""From what there was to do to seconds, and to the figures of the page.  Pure functions over plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from ovam_labeler.evaluation.annotator.edit_time import Pace, draw_seconds, edit_seconds
from ovam_labeler.evaluation.annotator.session import ACCEPTED, FALSE, MISSING, MaskWork
from ovam_labeler.evaluation.metrics import paired_bootstrap

#: Ways of labeling, as they are printed.
NOTHING, WORDS, LOOP = "drawn from nothing", "words only, never learning", "the loop"
WAYS = (NOTHING, WORDS, LOOP)

#: Pictures that are pooled into one point of the curve.
STEP = 10


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's sessions.

    Attributes:
        words: class -> whether its word was in the model's training.
        scenes: number of pictures.
        sessions: :data:`WORDS` and :data:`LOOP` -> what there was to do.
        quiet: way -> classes that stopped proposing.
    """

    seed: int
    words: Mapping[str, bool]
    scenes: int
    sessions: Mapping[str, Sequence[MaskWork]]
    quiet: Mapping[str, Sequence[str]]

    def work(self, way: str) -> Sequence[MaskWork]:
        """Drawing from nothing needs no session: the masks are those of any other."""
        if way != NOTHING:
            return self.sessions[way]
        return [replace(one, met=MISSING, source="", edit=None) for one in self.sessions[LOOP] if one.draw is not None]


#: Seconds of one class in one picture.
Clock = Callable[[MaskWork, Pace], float]


def seconds(work: MaskWork, pace: Pace) -> float:
    """A proposal is looked at, then the quicker of mending it, and deleting it and drawing anew, is done."""
    if work.met == MISSING:
        assert work.draw is not None
        return draw_seconds(work.draw, pace)
    if work.met == ACCEPTED:
        return pace.look
    if work.met == FALSE:
        return pace.look + pace.delete
    assert work.draw is not None and work.edit is not None
    return pace.look + min(edit_seconds(work.edit, pace), pace.delete + draw_seconds(work.draw, pace))


def seconds_mending(work: MaskWork, pace: Pace) -> float:
    """As :func:`seconds`, of an annotator who mends whatever was proposed, however bad."""
    if work.edit is not None:
        return pace.look + edit_seconds(work.edit, pace)
    return seconds(work, pace)


def seconds_sweeping(work: MaskWork, pace: Pace) -> float:
    """As :func:`seconds`, where instead of one wrong part after the other each tool may be led once along the whole border."""
    usual = seconds(work, pace)
    if work.edit is None or work.draw is None:
        return usual
    tools = work.edit.tools
    sweep = replace(work.edit, strokes=tools, trace=tools * work.draw.trace)
    return min(usual, pace.look + edit_seconds(sweep, pace))


def per_mask(run: Run, way: str, pace: Pace, first: int = 0, last: int | None = None, clock: Clock = seconds) -> float:
    """Seconds a mask over the pictures ``first`` to ``last``: all work, false proposals included, over the masks there are."""
    end = run.scenes if last is None else min(last, run.scenes)
    chosen = [one for one in run.work(way) if first <= one.place < end]
    masks = sum(one.draw is not None for one in chosen)
    return (sum(clock(one, pace) for one in chosen) + (end - first) * pace.scene) / masks


def curve(runs: Sequence[Run], way: str, pace: Pace) -> list[list[float]]:
    """Seconds a mask by :data:`STEP` pictures: one list a point, one value a seed."""
    ends = range(STEP, max(run.scenes for run in runs) + 1, STEP)
    return [[per_mask(run, way, pace, end - STEP, end) for run in runs] for end in ends]


@dataclass(frozen=True, slots=True)
class Saved:
    """Share of the time of drawing that is saved, in percent, over seeds (negative: lost)."""

    mean: float
    least: float
    most: float


def saved(runs: Sequence[Run], way: str, pace: Pace, first: int = 0, clock: Clock = seconds) -> Saved:
    values = [
        100 * (1 - per_mask(run, way, pace, first, clock=clock) / per_mask(run, NOTHING, pace, first)) for run in runs
    ]
    return Saved(fmean(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class ClassTime:
    """One class of one seed: seconds a mask without those for the picture as a whole, false proposals included.

    Attributes:
        met: way -> how often each of missing, accepted, wrong and false was met.
    """

    seed: int
    label: str
    has_word: bool
    masks: int
    seconds: Mapping[str, float]
    met: Mapping[str, Mapping[str, int]]


def class_times(runs: Iterable[Run], pace: Pace, first: int = 0) -> list[ClassTime]:
    """Every class of every run that is in some picture from ``first`` on."""
    rows = []
    for run in runs:
        for label, has_word in run.words.items():
            own = {way: [w for w in run.work(way) if w.label == label and w.place >= first] for way in WAYS}
            masks = sum(one.draw is not None for one in own[NOTHING])
            if not masks:
                continue
            spent = {way: sum(seconds(one, pace) for one in works) / masks for way, works in own.items()}
            met: dict[str, dict[str, int]] = {}
            for way, works in own.items():
                met[way] = {}
                for one in works:
                    met[way][one.met] = met[way].get(one.met, 0) + 1
            rows.append(ClassTime(run.seed, label, has_word, masks, spent, met))
    return rows


def gain(rows: Sequence[ClassTime], way: str, against: str) -> tuple[float, tuple[float, float]]:
    """Mean over classes of the seconds a mask that ``way`` saves, and its paired 95 % bootstrap interval."""
    differences = [row.seconds[against] - row.seconds[way] for row in rows]
    return fmean(differences), paired_bootstrap(differences)


def other_paces(pace: Pace) -> dict[str, Pace]:
    """The constants halved and doubled, one after the other.  Tolerance and brush shape the sessions and are not here."""
    found = {}
    for factor, how in ((0.5, "halved"), (2.0, "doubled")):
        found[f"steering {how}"] = replace(pace, steer=pace.steer * factor)
        found[f"deciding {how}"] = replace(pace, decide=pace.decide * factor)
        found[f"pointing, pressing and homing {how}"] = replace(
            pace, point=pace.point * factor, press=pace.press * factor, home=pace.home * factor
        )
    return found


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, least, most)."""
    return float(np.mean(values)), float(np.min(values)), float(np.max(values))
