"""The gate's rules over figures: when the current token stays, what untouched proposals weigh."""

from __future__ import annotations

import json

import pytest

from ovam_labeler.promotion import MARGIN, Evidence, judge


def test_a_contradiction_is_rejected_and_the_current_token_stays() -> None:
    verdict = judge(
        Evidence((0.5,), (0.2,), (0.3, 0.4), (0.6, 0.6), contradicts=True, set_aside=(4,)),
        known=False,
        has_current=True,
    )
    assert (verdict.use, verdict.state) == ("current", "rejected")
    assert "contradicts" in verdict.reason and "0.35 with the newest against 0.60 without" in verdict.reason
    assert judge(Evidence(contradicts=True), known=False, has_current=False).use == "word"


def test_a_newest_correction_that_costs_more_than_the_margin_is_rejected() -> None:
    good, token, word = (0.6, 0.6, 0.6), (0.6,) * 4, (0.2,) * 4
    within = tuple(x - 0.9 * MARGIN for x in good)
    beyond = tuple(x - 1.1 * MARGIN for x in good)
    assert judge(Evidence(token, word, within, good), known=False, has_current=True).use == "new"
    assert judge(Evidence(token, word, beyond, good), known=False, has_current=True).use == "current"
    assert judge(Evidence(token, word, beyond, good), known=False, has_current=False).use == "new"


def test_untouched_proposals_take_back_part_of_the_margin_only() -> None:
    token, word, good = (0.6,) * 4, (0.2,) * 4, (0.6, 0.6)
    less = tuple(x - 0.7 * MARGIN for x in good)
    assert judge(Evidence(token, word, less, good), known=False, has_current=True).use == "new"
    accepted = Evidence(token, word, less, good, accepted=12, offered=12)
    assert judge(accepted, known=False, has_current=True).use == "current"
    # However many were accepted, a token that does no worse is used.
    same = Evidence(token, word, good, good, accepted=10_000, offered=10_000)
    assert judge(same, known=False, has_current=True).use == "new"
    assert "easier accepted" in accepted.figures()["accepted"]["bias"]


def test_negatives_count_against_who_sees_the_class_in_them() -> None:
    token, word = (0.5, 0.5), (0.45, 0.45)
    assert judge(Evidence(token, word), known=True, has_current=False).use == "new"
    loud = Evidence(token, word, negatives=2, token_alarms=2, word_alarms=0)
    verdict = judge(loud, known=True, has_current=False)
    assert verdict.use == "word" and "seen in 2 against 0 of 2 pictures without it" in verdict.reason


@pytest.mark.parametrize("evidence", [Evidence(), Evidence((0.5,), (0.2,), negatives=1, set_aside=(3,))])
def test_figures_are_json(evidence: Evidence) -> None:
    assert json.loads(json.dumps(evidence.figures())) == evidence.figures()
