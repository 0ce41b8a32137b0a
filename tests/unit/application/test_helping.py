"""Figures of what annotators made of proposals, the rule by which a class stops proposing, and disagreements."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ovam_labeler.cli.main import app
from ovam_labeler.disagreements import disagreements
from ovam_labeler.helping import (
    HURT_COUNT,
    QUIET,
    STABLE_RUN,
    corrections_until_stable,
    figures,
    hurts,
    quiet_labels,
    report,
    resume,
    review,
    stops,
)
from token_store import open_store
from token_store.contract import TokenStore
from token_store.entities import CorrectionMask, NewCorrection, ProposalOutcome, Scope

SCOPE = Scope("default", "2")
START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TokenStore]:
    opened = open_store(tmp_path / "ovam.sqlite3")
    yield opened
    opened.close()


def outcome(number: int, kind: str = "kept", version: int | None = 1, **changes: Any) -> ProposalOutcome:
    counts = {
        "kept": (1, 0, 0, 0, 1.0),
        "good": (0, 1, 0, 0, 0.95),
        "poor": (0, 1, 0, 0, 0.6),
        "bad": (0, 0, 1, 1, 0.0),
    }
    untouched, changed, deleted, drawn, iou = counts[kind]
    at = START + timedelta(minutes=number)
    made = ProposalOutcome(
        SCOPE, str(number), "cat", str(number), "ann", "m", version, untouched, changed, deleted, drawn, iou, 10.0 + number, at
    )  # fmt: skip
    return replace(made, **changes)


def test_figures_by_class_and_version() -> None:
    rows = figures(
        [
            outcome(1, "bad", None),
            outcome(2, "kept"),
            outcome(3, "poor"),
            outcome(4, "poor", iou=None, lead_time=None),
            outcome(5, "kept", label="dog", scope=Scope("b", "1")),
        ]
    )
    assert [(str(r.scope), r.label, r.token_version, r.proposals) for r in rows] == [
        ("b/1", "dog", 1, 1),
        ("default/2", "cat", None, 1),
        ("default/2", "cat", 1, 3),
    ]
    word, token = rows[1], rows[2]
    assert (word.untouched, word.iou, word.deleted, word.hurt) == (0.0, 0.0, 1.0, 1.0)
    assert (token.untouched, token.iou, token.deleted, token.hurt) == (1 / 3, 0.8, 0.0, 0.0)
    assert token.lead_time == 12.5


def test_corrections_until_stable() -> None:
    good = [outcome(n, "good") for n in range(STABLE_RUN)]
    assert corrections_until_stable(good) == 0
    assert corrections_until_stable([outcome(0, "poor"), *good[:-1], outcome(9, "bad"), *good]) == 2
    assert corrections_until_stable([outcome(0, "poor"), *good[:-1]]) is None
    assert corrections_until_stable([]) is None


def test_a_proposal_hurts_when_mending_is_more_work_than_drawing() -> None:
    assert hurts(outcome(1, "bad")) and hurts(outcome(1, "poor", iou=0.2))
    assert not any(hurts(outcome(1, kind)) for kind in ("kept", "good", "poor"))
    assert not hurts(outcome(1, "poor", iou=None)) and not hurts(outcome(1, "bad", changed=1, iou=None))


def test_the_rule_by_which_a_class_stops() -> None:
    bad = [outcome(n, "bad") for n in range(HURT_COUNT)]
    assert stops(bad, 1) and "more work than drawing" in str(stops(bad, 1))
    assert stops(bad[1:], 1) is None, "too few to say so"
    assert stops(bad, 2) is None and stops(bad, None) is None, "another version has its own record"
    assert stops([*bad, *(outcome(n, "kept") for n in range(10, 12))], 1) is None, (
        "4 of its last 6 is under three quarters"
    )
    assert stops([*(outcome(n, "kept") for n in range(9)), *bad[:5]], 1), "5 of its last 6"


def test_it_stops_says_so_and_goes_on_with_a_new_version_or_a_word_of_a_person(store: TokenStore) -> None:
    bad = [outcome(n, "bad") for n in range(HURT_COUNT)]
    store.put_outcomes(bad[:-1])
    assert review(store, SCOPE, bad[:-1], "now") == []
    store.put_outcomes(bad)
    assert review(store, SCOPE, bad[-1:], "now") == ["cat"] and review(store, SCOPE, bad[-1:], "now") == []
    assert quiet_labels(store, SCOPE, {"cat": 1, "dog": 1}) == {"cat"}
    assert quiet_labels(store, SCOPE, {"cat": 2}) == frozenset()
    (said,) = report(store)["quiet"]
    assert (said["label"], said["version"], said["since"]) == ("cat", 1, "now") and "6 proposals 6" in said["reason"]
    assert resume(store, SCOPE, "cat") and not resume(store, SCOPE, "cat")
    assert store.get_note(SCOPE, QUIET) == {} and quiet_labels(store, SCOPE, {"cat": 1}) == frozenset()
    assert review(store, SCOPE, bad[-1:], "later") == [], "a person's word stands for this version"


def correction(
    store: TokenStore, annotation: str, who: str, mask: np.ndarray, task: str = "1", label: str = "cat"
) -> int:
    new = NewCorrection(SCOPE, annotation, "2026-11-24T09:00:00Z", task, "x.png", {"tool": "t"}, (label,), who)
    made, _, _ = store.add_correction(new)
    kind = "positive" if mask.any() else "negative"
    store.put_correction_masks([CorrectionMask(made.id, label, kind, mask, np.zeros_like(mask))])
    return made.id


def test_annotators_who_disagree_on_a_task_are_shown(store: TokenStore) -> None:
    left, right = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    left[:, :4], right[:, 4:] = True, True
    first, second = correction(store, "1", "ann", left), correction(store, "2", "bob", right)
    correction(store, "3", "ann", left, task="2")
    correction(store, "4", "bob", left, task="2")  # they agree
    correction(store, "5", "ann", left, task="3")
    correction(store, "6", "bob", right, task="3", label="dog")  # of another class
    negative = correction(store, "7", "cid", np.zeros((8, 8), bool))
    found = disagreements(store, SCOPE)
    assert [(d.task_id, d.label, d.corrections, d.iou) for d in found] == [
        ("1", "cat", (first, second), 0.0),
        ("1", "cat", (first, negative), 0.0),
        ("1", "cat", (second, negative), 0.0),
    ]
    assert "annotators ann and bob disagree on 'cat'" in found[0].sentence
    store.retract_corrections(SCOPE, ["2", "7"], note="gone")
    assert disagreements(store, SCOPE) == disagreements(store, SCOPE, task_id="2") == []


def test_the_report_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVAM_DATA_DIR", str(tmp_path))
    store = open_store(tmp_path / "ovam.sqlite3")
    store.put_project_options(SCOPE, {})
    bad = [outcome(n, "bad") for n in range(HURT_COUNT)]
    store.put_outcomes([*bad, outcome(50, "kept", None)])
    review(store, SCOPE, bad[-1:], "2026-11-24")
    mask = np.eye(8, dtype=bool)
    correction(store, "1", "ann", mask)
    correction(store, "2", "bob", ~mask)
    store.close()
    run = CliRunner()
    shown = run.invoke(app, ["report"])
    assert shown.exit_code == 0, shown.output
    for part in ("v1", "word", "100%", "has stopped proposing since 2026-11-24", "disagree on 'cat'"):
        assert part in shown.output
    data = json.loads(run.invoke(app, ["report", "--project", "2", "--json"]).output)
    assert [c["proposals"] for c in data["classes"]] == [1, 6] and len(data["disagreements"]) == 1
    assert run.invoke(app, ["report", "--project", "2", "--resume", "cat"]).exit_code == 0
    again = run.invoke(app, ["report", "--project", "2", "--json"])
    assert json.loads(again.output)["quiet"] == []
    assert run.invoke(app, ["report", "--project", "2", "--resume", "cat"]).exit_code != 0
