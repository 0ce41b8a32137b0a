"""The model of an annotator's time: what it counts, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ovam_labeler.evaluation.annotator.edit_time import Pace, draw_seconds, draw_work, edit_seconds, edit_work
from ovam_labeler.evaluation.annotator.figures import (
    LOOP,
    NOTHING,
    WORDS,
    Run,
    class_times,
    other_paces,
    per_mask,
    saved,
    seconds,
    seconds_mending,
    seconds_sweeping,
)
from ovam_labeler.evaluation.annotator.session import ACCEPTED, FALSE, MISSING, WRONG, MaskWork

PACE = Pace()


def box(top: int, left: int, bottom: int, right: int, size: int = 200) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


TRUTH = box(40, 40, 120, 120)


def test_a_box_drawn_from_nothing():
    work = draw_work(TRUTH, PACE)
    assert (work.tools, work.strokes) == (1, 1)
    # 320 steps along the border, brought to length; 2 % of 200 pixels is the room on both sides together.
    assert work.trace == pytest.approx(320 * np.pi / 4 / 4)
    # What is more than 10 pixels (5 %) inside: 60 x 60, in squares of 10.
    assert work.fill == pytest.approx(36)
    expected = 1.35 + 1.3 + 1.3 + 0.1 * (work.trace + work.fill)
    assert draw_seconds(work, PACE) == pytest.approx(expected)


@pytest.mark.parametrize(
    "mask",
    [TRUTH, box(42, 42, 118, 118), box(38, 38, 122, 122), box(40, 40, 120, 121)],
    ids=["exact", "2 pixels in", "2 pixels out", "one side"],
)
def test_within_the_tolerance_nothing_is_to_be_mended(mask: np.ndarray):
    assert edit_work(mask, TRUTH, PACE) is None


def test_only_the_wrong_part_is_mended():
    short = edit_work(box(40, 40, 120, 100), TRUTH, PACE)  # its right quarter is missing
    assert short is not None and (short.tools, short.strokes) == (1, 1)
    assert 0.2 < short.trace / draw_work(TRUTH, PACE).trace < 0.6
    spill = edit_work(TRUTH | box(150, 150, 190, 190), TRUTH, PACE)  # and something far off is painted
    assert spill is not None and (spill.tools, spill.strokes, spill.trace) == (1, 1, 0.0)
    assert spill.fill == pytest.approx(16)
    both = edit_work(box(40, 40, 120, 100) | box(150, 150, 190, 190), TRUTH, PACE)
    assert both is not None and (both.tools, both.strokes) == (2, 2)
    assert both.trace == short.trace and both.fill == pytest.approx(short.fill + spill.fill)
    assert edit_seconds(both, PACE) > max(edit_seconds(short, PACE), edit_seconds(spill, PACE))


def test_the_picture_s_edge_needs_no_care():
    at_the_edge = draw_work(box(0, 0, 80, 80), PACE)
    assert at_the_edge.trace == pytest.approx(draw_work(TRUTH, PACE).trace / 2)


def test_a_larger_picture_of_the_same_takes_as_long():
    large = draw_work(np.kron(TRUTH, np.ones((3, 3), bool)), PACE)
    assert large.trace == pytest.approx(draw_work(TRUTH, PACE).trace)
    assert large.fill == pytest.approx(draw_work(TRUTH, PACE).fill)


def work(place: int, met: str, mask: np.ndarray | None = None, label: str = "a") -> MaskWork:
    draw = None if met == FALSE else draw_work(TRUTH, PACE)
    edit = edit_work(mask, TRUTH, PACE) if mask is not None else None
    return MaskWork(place, label, met, "" if met == MISSING else "word", None, draw, edit)


def test_what_each_proposal_costs():
    drawing = draw_seconds(draw_work(TRUTH, PACE), PACE)
    assert seconds(work(0, MISSING), PACE) == pytest.approx(drawing)
    assert seconds(work(0, ACCEPTED), PACE) == PACE.look
    assert seconds(work(0, FALSE), PACE) == pytest.approx(1.35 + 1.3 + 0.8 + 0.2)
    good, hopeless = work(0, WRONG, box(40, 40, 120, 100)), work(0, WRONG, box(100, 0, 200, 200))
    assert seconds(good, PACE) < drawing
    # Nobody mends what is quicker drawn anew; it still has to be looked at and deleted.
    assert seconds(hopeless, PACE) == pytest.approx(PACE.look + PACE.delete + drawing)
    assert seconds_mending(hopeless, PACE) > seconds(hopeless, PACE)
    # A border that is wrong in many places is followed once, rather than touched up nineteen times.
    comb = TRUTH.copy()
    comb[40:45, 40:120:4] = comb[40:45, 41:120:4] = False
    ragged = work(0, WRONG, comb)
    assert ragged.edit is not None and ragged.edit.strokes == 19  # one tooth lies within the tolerance of the corner
    assert seconds_sweeping(ragged, PACE) < seconds(ragged, PACE) and seconds_sweeping(good, PACE) == seconds(
        good, PACE
    )


def test_false_proposals_count_against_us():
    found = [work(0, ACCEPTED), work(1, FALSE), work(1, MISSING)]
    run = Run(0, {"a": False}, 2, {WORDS: [work(0, MISSING), work(1, MISSING)], LOOP: found}, {WORDS: [], LOOP: []})
    drawing = draw_seconds(draw_work(TRUTH, PACE), PACE)
    assert per_mask(run, NOTHING, PACE) == pytest.approx(drawing + PACE.scene)
    assert per_mask(run, WORDS, PACE) == pytest.approx(drawing + PACE.scene)
    spent = PACE.look + PACE.look + PACE.delete + drawing
    assert per_mask(run, LOOP, PACE) == pytest.approx(spent / 2 + PACE.scene)
    assert per_mask(run, LOOP, PACE, 1) == pytest.approx(PACE.look + PACE.delete + drawing + PACE.scene)
    assert saved([run], LOOP, PACE, 1).mean < 0 < saved([run], LOOP, PACE).mean
    (row,) = class_times([run], PACE)
    assert row.masks == 2 and row.met[LOOP] == {ACCEPTED: 1, FALSE: 1, MISSING: 1}
    assert row.seconds[LOOP] == pytest.approx(spent / 2) and row.seconds[NOTHING] == pytest.approx(drawing)


def test_every_constant_of_the_hand_is_halved_and_doubled():
    changed = {
        name
        for other in other_paces(PACE).values()
        for name in vars_of(PACE)
        if getattr(other, name) != getattr(PACE, name)
    }
    assert changed == {"decide", "point", "press", "home", "steer"}
    assert replace(PACE, steer=0.2) in other_paces(PACE).values()


def vars_of(pace: Pace) -> list[str]:
    return list(pace.__dataclass_fields__)
