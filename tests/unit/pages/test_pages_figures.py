"""Figures, curves, times: whatever is stored, a page is made of it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovam_labeler.errors import BadRequestError
from ovam_labeler.pages import filters, query
from ovam_labeler.pages.curves import loss_curve
from ovam_labeler.pages.figures import evidence_of, proof_of, text
from ovam_labeler.pages.sentences import sentence_of
from token_store.entities import Scope

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab\0ü", max_size=500)
lists = st.lists(scalars, max_size=5)
NAMES = (
    "token",
    "word",
    "held_back",
    "newest",
    "with",
    "without",
    "negatives",
    "count",
    "accepted",
    "offered",
    "set_aside",
)
flat = scalars | lists | st.dictionaries(st.sampled_from(NAMES), scalars | lists, max_size=4)
anything = flat | st.dictionaries(st.sampled_from(NAMES), flat, max_size=4)
KEYS = ("evidence", "held_out", "train_iou", "word_iou", "losses", "best_epoch", "reason", "examples", "seconds")
metrics = st.dictionaries(st.sampled_from(KEYS), anything, max_size=len(KEYS))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(metrics)
def test_whatever_is_stored_gives_finite_figures(found: dict[str, Any]) -> None:
    proof = proof_of(found)
    for value in (proof.token, proof.word, proof.fit, proof.fit_word):
        assert value is None or math.isfinite(value)
    curve = loss_curve(found, 90, 26)
    if curve is not None:
        assert "nan" not in curve.points and "inf" not in curve.points
    assert len(text(found.get("reason"))) <= 400
    assert all(line.what and line.figures for line in evidence_of(found))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2000))
def test_a_curve_stays_in_its_box_and_marks_its_lowest_loss(losses: list[float]) -> None:
    curve = loss_curve({"losses": losses}, 90, 26)
    assert curve is not None
    points = [tuple(map(float, p.split(","))) for p in curve.points.split()]
    assert len(points) <= 241 and points[0][0] == 0 and points[-1][0] == 90
    assert all(0 <= x <= 90 and -0.1 <= y <= 26.1 for x, y in points)
    assert losses[curve.best_epoch] == min(losses) == curve.lowest


def test_the_kept_epoch_is_the_recorded_one() -> None:
    curve = loss_curve({"losses": [3.0, 1.0, 2.0], "best_epoch": 2}, 90, 26)
    assert curve is not None and curve.best_epoch == 2 and curve.best == (90.0, 13.0)
    assert loss_curve({"losses": [1.0]}, 90, 26) is None


def test_proof_is_of_what_was_held_back() -> None:
    proof = proof_of({"held_out": {"token": [0.8, 0.6], "word": [0.2, 0.4]}, "train_iou": 0.95})
    assert (proof.token, proof.word, proof.count) == (pytest.approx(0.7), pytest.approx(0.3), 2)
    assert proof.lead == pytest.approx(0.4)
    assert proof_of({"train_iou": 0.95}).token is None


@pytest.mark.parametrize(("value", "shown"), [(0.305, "+0.30"), (-0.02, "−0.02"), (0.004, "±0.00"), (-0.001, "±0.00")])
def test_a_difference_has_its_sign(value: float, shown: str) -> None:
    assert filters.signed(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (2, "just now"),
        (90, "1 min ago"),
        (7200, "2 h ago"),
        (200_000, "2 d ago"),
        (-31, "in 31 s"),
        (-1830, "in 30 min"),
    ],
)
def test_how_long_ago(seconds: float, shown: str) -> None:
    assert filters.ago(datetime.now(UTC) - timedelta(seconds=seconds - 0.5 if seconds < 0 else seconds)) == shown


@given(st.text())
def test_a_scope_is_read_back_or_refused(given_text: str) -> None:
    try:
        scope = query.read_scope({"scope": given_text})
    except BadRequestError:
        return
    assert query.scope_text(scope) == given_text


@pytest.mark.parametrize("scope", [Scope("default", "2"), Scope("a.b-c", "7"), Scope.everywhere()])
def test_scopes_in_addresses(scope: Scope) -> None:
    assert query.read_scope({"scope": query.scope_text(scope)}) == scope


@given(st.text())
def test_a_reason_is_one_line(reason: str) -> None:
    kept = query.read_reason({"reason": reason})
    assert kept and len(kept) <= 500 and kept.isprintable()


@pytest.mark.parametrize(
    ("what", "details", "sentence"),
    [
        ("alias.set", {"alias": "active", "from": None, "to": 1}, "version 1 is in use, was the word"),
        ("alias.remove", {"alias": "active", "from": 2, "to": None}, "the word is in use, was version 2"),
        ("rollback.set", {"alias": "active", "from": 2, "to": 1}, "taken back: version 1 is in use, was version 2"),
        ("alias.set", {"alias": "candidate", "from": None, "to": 3}, "version 3 is candidate"),
        ("alias.remove", {"alias": "candidate", "from": 3, "to": None}, "version 3 is candidate no more"),
        ("version.state", {"version": 2, "from": "proven", "to": "archived"}, "version 2 is archived, was proven"),
        ("version.delete", {"version": 2}, "version 2 was deleted for good"),
        ("class.pause", {}, "learning was paused"),
        ("correction.retracted", {"correction_id": 4}, "correction 4 was withdrawn"),
        (
            "project.options",
            {"from": {"policy": None, "learning": True}, "to": {"policy": "auto", "learning": False}},
            "settings: policy auto, was unset; learning off, was on",
        ),
        ("tag.set", {"key": "site", "value": "north"}, "tag site is north"),
        ("something.new", {}, "something.new"),
    ],
)
def test_entries_of_the_log_are_sentences(what: str, details: Any, sentence: str) -> None:
    assert sentence_of({"what": what, "details": details}) == sentence


def test_the_evidence_is_told_with_its_bias() -> None:
    found = {
        "held_back": {"token": [0.7, 0.5], "word": [0.4, 0.1]},
        "newest": {"with": [0.6], "without": [0.65]},
        "negatives": {"count": 3, "token": 1, "word": 2},
        "accepted": {"untouched": 4, "offered": 9, "bias": "towards the current token"},
        "contradicts": True,
        "set_aside": [12],
    }
    assert [line.figures for line in evidence_of({"evidence": found})] == [
        "token 0.70, 0.50; word 0.40, 0.10",
        "with it 0.60; without 0.65",
        "seen by the token in 1, by the word in 2 of 3",
        "4 of 9",
        "contradicts the others",
        "12",
    ]
    assert evidence_of({"evidence": found})[3].note == "biased towards the current token"
    assert evidence_of({}) == []
