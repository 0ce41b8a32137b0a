"""The gate's rules over figures: who contradicts whom, when the current token stays, what untouched proposals weigh."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovam_labeler.promotion import MARGIN, Evidence, contradicting, judge


def table(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=float)


NAN = float("nan")


def groups(*sizes: int, within: float = 0.6, across: float = -0.4) -> np.ndarray:
    """Agreement of corrections that fall into groups."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    found = np.where(of[:, None] == of[None, :], within, across).astype(float)
    np.fill_diagonal(found, NAN)
    return found


def test_two_corrections_cannot_outvote_each_other() -> None:
    assert contradicting(groups(1, 1)) == []
    assert contradicting(groups(1)) == []


def test_the_one_that_agrees_with_no_other_is_set_aside() -> None:
    assert contradicting(groups(1, 2)) == [0]
    assert contradicting(groups(3, 1)) == [3]
    assert sorted(contradicting(groups(1, 5, 1, within=0.8))) == [0, 6]
    assert contradicting(groups(4)) == []


def test_where_the_others_hardly_agree_little_is_known_of_the_odd_one() -> None:
    assert contradicting(groups(1, 2, within=0.3, across=-0.2)) == []
    assert contradicting(groups(1, 2, within=0.3, across=-0.8)) == [0]


def test_what_the_others_say_of_its_picture_counts_most() -> None:
    """A wrong mask's token may light up whatever stands out; the others' tokens are not deceived by its picture."""
    found = groups(1, 2, across=0.6)
    found[0, 1:] = -0.5  # row: its picture, asked for with the others' tokens
    assert contradicting(found) == [0]
    turned = groups(1, 2, across=0.6)
    turned[1:, 0] = -0.5
    assert contradicting(turned) == []


def test_no_majority_no_verdict() -> None:
    assert contradicting(groups(2, 2)) == []
    # Two designs of one class agree among themselves: neither is outvoted.
    assert contradicting(groups(2, 3)) == []
    assert contradicting(groups(1, 1, 1)) == []


@given(st.integers(1, 7), st.integers(0, 10**6))
def test_the_majority_always_stays(n: int, seed: int) -> None:
    aside = contradicting(np.random.default_rng(seed).uniform(-1, 1, (n, n)))
    assert 2 * (n - len(aside)) > n and len(set(aside)) == len(aside)


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
