"""Two annotators who disagree: nothing is learned from either until it is decided which of them teaches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from colour_model import box
from test_learn import OPTIONS, SCOPE, Tool, propose, tool, yellow

from ovam_labeler.application import OvamApplication
from ovam_labeler.disagreements import Disagreement, decide, disagreements, disputed
from ovam_labeler.domain import LearnResult
from ovam_labeler.errors import BadRequestError
from ovam_labeler.truth import build_truths
from token_store.entities import Correction, NewCorrection

__all__ = ["tool"]

RIGHT, WRONG = box(8, 8, 32, 32), box(40, 60, 20, 30)


def annotate(
    app: OvamApplication, tool: Tool, who: str, mask: np.ndarray, annotation: str, task: str = "7", **more: Any
) -> Correction:
    """One annotator's mask of 'lemon' on the task's picture, learned."""
    image = yellow()
    tool.images[image.sha256] = image
    regions = [("lemon", mask)] if mask.any() else []
    tool.truths[annotation] = build_truths((image.height, image.width), regions, ["lemon"])
    payload = {"tool": "tool", "annotation": more}
    at = datetime.now(UTC).isoformat()
    new = NewCorrection(SCOPE, annotation, at, task, image.sha256, payload, ("lemon",), who)
    stored = app.store.add_correction(new)[0]
    app.learner.learn_correction(stored.id)
    return stored


def active(app: OvamApplication) -> int | None:
    return app.store.get_token(SCOPE, "lemon").aliases.get("active")


def judge(app: OvamApplication) -> LearnResult | None:
    """Do the review that waits."""
    job = app.store.claim_job("worker", ["review"])
    assert job is not None and job.payload["label"] == "lemon"
    app.store.finish_job(job.id, state="done")
    return app.learner.review_class(SCOPE, "lemon")


def test_both_are_held_back_and_what_was_learned_is_taken_away(app: OvamApplication, tool: Tool) -> None:
    first = annotate(app, tool, "ann", RIGHT, "1")
    assert active(app) == 1
    second = annotate(app, tool, "bob", WRONG, "2")
    assert active(app) is None and propose(app, yellow(), "lemon").source == "word"
    note = app.store.get_correction(second.id).note
    assert "held back" in note and "annotators ann and bob disagree on 'lemon'" in note
    (row,) = disagreements(app.store, SCOPE)
    assert (row.corrections, row.teaches) == ((first.id, second.id), None) and "nothing is learned" in row.sentence
    again = annotate(app, tool, "ann", RIGHT, "3", task="8")
    assert active(app) == 2, "a correction of another task is learned from"
    assert app.store.get_version(SCOPE, "lemon", 2).source_corrections == (again.id,)


def test_a_deleted_annotation_ends_it_and_the_token_is_back(app: OvamApplication, tool: Tool) -> None:
    annotate(app, tool, "ann", RIGHT, "1")
    annotate(app, tool, "bob", np.zeros_like(RIGHT), "2")  # says that there is none
    assert active(app) is None
    app.store.retract_corrections(SCOPE, ["2"], note="deleted", job_kind="review")
    result = judge(app)
    assert result is not None and result.active and active(app) == 1
    assert disagreements(app.store, SCOPE) == []
    assert judge_quietly(app) == 1, "judged again, nothing moves"


def judge_quietly(app: OvamApplication) -> int | None:
    app.learner.review_class(SCOPE, "lemon")
    return active(app)


def test_an_update_that_agrees_teaches(app: OvamApplication, tool: Tool) -> None:
    first = annotate(app, tool, "ann", RIGHT, "1")
    annotate(app, tool, "bob", WRONG, "2")
    changed = annotate(app, tool, "bob", box(9, 9, 32, 32), "2")
    assert disagreements(app.store, SCOPE) == []
    version = app.store.get_version(SCOPE, "lemon", "active")
    assert version.source_corrections == (first.id, changed.id)


def test_the_ground_truth_teaches(app: OvamApplication, tool: Tool) -> None:
    annotate(app, tool, "ann", WRONG, "1")
    annotate(app, tool, "bob", RIGHT, "2")
    truth = annotate(app, tool, "bob", RIGHT, "2", ground_truth=True)
    assert app.store.get_version(SCOPE, "lemon", "active").source_corrections == (truth.id,)
    (row,) = disagreements(app.store, SCOPE)
    assert (row.teaches, row.decided_by) == (truth.id, "ground truth")


def test_a_person_decides_until_the_other_annotation_changes(app: OvamApplication, tool: Tool) -> None:
    first = annotate(app, tool, "ann", RIGHT, "1")
    second = annotate(app, tool, "bob", WRONG, "2")
    decide(app.store, first.id, second.id, "lemon", "lea")
    result = judge(app)
    assert result is not None and result.active and active(app) == 1
    (row,) = disagreements(app.store, SCOPE)
    assert (row.teaches, row.decided_by) == (first.id, "lea") and "teaches, by lea" in row.sentence
    changed = annotate(app, tool, "bob", WRONG, "2")
    (row,) = disagreements(app.store, SCOPE)
    assert (row.corrections, row.teaches) == ((first.id, changed.id), None) and active(app) is None
    with pytest.raises(BadRequestError, match="do not disagree"):
        decide(app.store, first.id, second.id, "lemon", "lea")
    decide(app.store, changed.id, first.id, "lemon", "lea")
    judge(app)
    assert app.store.get_version(SCOPE, "lemon", "active").source_corrections == (changed.id,)


def test_an_older_token_serves_meanwhile(app: OvamApplication, tool: Tool) -> None:
    annotate(app, tool, "ann", RIGHT, "1", task="6")
    annotate(app, tool, "ann", RIGHT, "2")
    assert active(app) == 2
    second = annotate(app, tool, "bob", WRONG, "3")
    assert active(app) == 1, "learned without the task that is in dispute"
    decide(app.store, second.id - 1, second.id, "lemon", "lea")
    judge(app)
    assert active(app) == 2
    assert OPTIONS.policy == "gate"


def test_one_annotator_twice_is_no_disagreement(app: OvamApplication, tool: Tool) -> None:
    annotate(app, tool, "ann", RIGHT, "1")
    second = annotate(app, tool, "ann", WRONG, "2")
    assert disagreements(app.store, SCOPE) == []
    assert "held back" not in app.store.get_correction(second.id).note
    assert app.store.newest_versions(SCOPE, "lemon", limit=1)[0].metrics["considered"] == [second.id - 1, second.id]


def test_who_lost_one_decision_disputes_no_other() -> None:
    def row(pair: tuple[int, int], teaches: int | None) -> Disagreement:
        return Disagreement(SCOPE, "7", "lemon", ("a", "b"), pair, 0.1, teaches, "lea" if teaches else "")

    assert set(disputed([row((1, 3), None), row((2, 3), None)])) == {1, 2, 3}
    assert set(disputed([row((1, 3), 1), row((2, 3), None)])) == {3}
