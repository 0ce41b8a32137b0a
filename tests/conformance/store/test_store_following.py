"""Contract of the token store: notes on projects, what became of proposals, renamed classes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from token_store_samples import OTHER, PROJECT

from token_store.contract import InvalidValueError, TokenStore
from token_store.entities import CorrectionMask, NewCorrection, NewTokenVersion, ProposalOutcome

START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
OUTCOME = ProposalOutcome(PROJECT, "7", "cat", "3", "ann", "m1", None, 1, 0, 0, 0, None, 12.5, START)


def test_notes(store: TokenStore) -> None:
    assert store.get_note(PROJECT, "cursor") == {}
    store.put_note(PROJECT, "cursor", {"at": "now", "n": 1})
    assert store.change_note(PROJECT, "cursor", {"n": None, "m": 2}) == {"at": "now", "m": 2}
    assert store.get_note(PROJECT, "cursor") == {"at": "now", "m": 2}
    store.put_note(PROJECT, "cursor", {})
    assert store.get_note(PROJECT, "cursor") == store.get_note(OTHER, "cursor") == store.get_note(PROJECT, "x") == {}
    with pytest.raises(InvalidValueError, match="name"):
        store.put_note(PROJECT, "", {})


def test_outcomes_are_replaced_by_newer_ones_only(store: TokenStore) -> None:
    later = replace(OUTCOME, at=START + timedelta(minutes=1), untouched=0, changed=1, iou=0.5, token_version=2)
    store.put_outcomes([later, replace(OUTCOME, label="dog"), replace(OUTCOME, scope=OTHER)])
    store.put_outcomes([OUTCOME])
    assert store.list_outcomes(PROJECT) == [replace(OUTCOME, label="dog"), later]
    store.put_outcomes([replace(later, iou=0.75)])
    assert store.list_outcomes(PROJECT, "cat") == [replace(later, iou=0.75)]
    assert (OUTCOME.kept, later.kept) == (True, False)
    store.drop_outcomes(PROJECT, ["7", "unknown"])
    assert store.list_outcomes() == [replace(OUTCOME, scope=OTHER)]
    store.put_outcomes([])
    with pytest.raises(InvalidValueError, match="iou"):
        store.put_outcomes([replace(OUTCOME, iou=1.5)])


def correction(annotation: str, *labels: str) -> NewCorrection:
    return NewCorrection(PROJECT, annotation, "2026-11-24T09:00:00Z", "3", "x.png", {"tool": "t"}, labels)


def test_a_renamed_class_keeps_versions_corrections_masks_and_outcomes(store: TokenStore) -> None:
    embedding = np.ones((2, 3), np.float32)
    store.add_version(PROJECT, "cat", NewTokenVersion({"space": "a"}, embedding, {}, {}), aliases=("active",))
    stored, _, _ = store.add_correction(correction("7", "dog", "cat"))
    mask = np.eye(4, dtype=bool)
    store.put_correction_masks([CorrectionMask(stored.id, name, "positive", mask, ~mask) for name in ("cat", "dog")])
    store.put_outcomes([OUTCOME])
    store.pause_class(PROJECT, "cat", True, who="test")
    assert store.rename_class(PROJECT, "cat", "kitten", who="test", why="the config says so")
    assert store.paused_classes(PROJECT) == ["kitten"]
    assert store.rename_class(PROJECT, "kitten", "tom", who="test", why="again")
    assert store.find_active(PROJECT, ["tom", "cat"])["tom"].number == 1
    renamed = store.get_correction(stored.id)
    assert renamed.labels == ("dog", "tom") and renamed.payload["renamed"] == {"cat": "tom", "kitten": "tom"}
    assert [m.label for m in store.correction_masks([stored.id])] == ["dog", "tom"]
    assert [o.label for o in store.list_outcomes(PROJECT)] == ["tom"]
    assert [c.id for c in store.list_corrections(PROJECT, label="tom")] == [stored.id]
    assert store.audit(1)[0]["what"] == "class.rename"


def test_a_name_that_is_taken_or_unknown_is_not_renamed(store: TokenStore) -> None:
    store.add_correction(correction("7", "dog"))
    store.add_correction(correction("8", "cat"))
    assert not store.rename_class(PROJECT, "cat", "dog", who="test", why="")
    assert not store.rename_class(PROJECT, "cow", "calf", who="test", why="")
    assert not store.rename_class(OTHER, "cat", "calf", who="test", why="")
    assert {c.labels for c in store.list_corrections(PROJECT)} == {("dog",), ("cat",)}


def test_known_annotations_are_told_by_their_newest_correction(store: TokenStore) -> None:
    first, _, _ = store.add_correction(correction("7", "dog"))
    second, _, _ = store.add_correction(replace(correction("7", "cat"), updated_at="2026-11-24T09:00:05Z"))
    store.add_correction(replace(correction("8"), task_id="4"))
    store.add_correction(replace(correction("9", "cat"), scope=OTHER))
    known = {k.annotation_id: k for k in store.known_annotations(PROJECT)}
    assert {name: (k.state, k.task_id) for name, k in known.items()} == {"7": ("pending", "3"), "8": ("ignored", "4")}
    assert known["7"].correction_id == second.id > first.id and known["7"].updated_at == "2026-11-24T09:00:05Z"
    assert [k.annotation_id for k in store.known_annotations(PROJECT, ["4", "5"])] == ["8"]
    store.retract_corrections(PROJECT, ["7"], note="gone")
    assert {k.annotation_id: k.state for k in store.known_annotations(PROJECT, ["3"])} == {"7": "retracted"}
    assert store.known_annotations(PROJECT, []) == []
