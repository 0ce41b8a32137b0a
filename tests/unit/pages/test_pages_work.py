"""Corrections and jobs: what waits, what failed, trying again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pages_helpers import SCOPE, Visitor, correction, learn

from ovam_labeler.application import OvamApplication
from token_store.entities import CorrectionMask


def fail(application: OvamApplication, number: int = 1) -> int:
    """A correction whose learning failed for good; returns its id."""
    stored = correction(application, number)
    job = application.store.claim_job("w")
    assert job is not None
    application.store.set_correction_state(stored.id, "failed", note="The image is gone.")
    application.store.finish_job(job.id, state="failed", message="The image is gone.")
    return stored.id


def test_a_failed_correction_says_why_and_is_tried_again(visitor: Visitor, application: OvamApplication) -> None:
    number = fail(application)
    page = visitor.get("/pages/corrections")
    assert "The image is gone." in page.text and "by bea" in page.text
    assert [a["value"] for a in page.all("button", name="again")] == [str(number)]
    page = visitor.send(page, "/pages/corrections", again=number)
    assert application.store.get_correction(number).state == "pending"
    queued = application.store.list_jobs(states=("queued",))
    assert [j.payload["correction_id"] for j in queued] == [number] and queued[0].kind == "learn"
    assert page.all("button", name="again") == []
    visitor.send(page, "/pages/corrections", again=number, status=400)  # it is on its way
    assert len(application.store.list_jobs(states=("queued",))) == 1


def test_a_correction_tried_again_is_learned_by_the_worker(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, "brick", 8)
    sha = application.store.list_corrections(SCOPE)[0].image_sha256
    stored = correction(application, labels=("brick",), payload={"tool": "direct", "image_sha256": sha}, task_id="7")
    masks = application.store.correction_masks([stored.id - 1])
    assert masks
    job = application.store.claim_job("w")
    assert job is not None
    application.store.finish_job(job.id, state="failed", message="Label Studio was down.")
    application.store.set_correction_state(stored.id, "failed", note="Label Studio was down.")
    visitor.send(visitor.get("/pages/corrections"), "/pages/corrections", again=stored.id)
    application.jobs.start()
    end = datetime.now(UTC) + timedelta(seconds=30)
    while application.store.get_correction(stored.id).state == "pending" and datetime.now(UTC) < end:
        pass
    # Its payload names an image without masks: the worker looked at it and said so.
    assert application.store.get_correction(stored.id).state == "failed"
    assert "no region" in visitor.get("/pages/corrections").text


@pytest.mark.parametrize("again", ["", "x", "0", "99"])
def test_trying_what_is_not_there(visitor: Visitor, application: OvamApplication, again: str) -> None:
    page = visitor.get("/pages/jobs")
    for path in ("/pages/corrections", "/pages/jobs"):
        fail(application, 1) if not application.store.list_corrections(SCOPE) else None
        page = visitor.get(path)
        visitor.send(page, path, again=again, status=404 if again == "99" else 400)


def test_learned_and_withdrawn_corrections_are_not_tried_again(visitor: Visitor, application: OvamApplication) -> None:
    learn(application)
    done = application.store.list_corrections(SCOPE)[0]
    gone = correction(application)
    application.store.retract_corrections(SCOPE, [gone.annotation_id], note="The task was deleted.")
    page = visitor.get("/pages/corrections")
    assert "withdrawn" in page.text and page.all("button", name="again") == []
    other = visitor.get("/pages/corrections")
    fields = {**other.hidden(), **visitor.get("/pages/project", scope="default/2").hidden()}
    for number in (done.id, gone.id):
        response = visitor.client.post("/pages/corrections", data={**fields, "again": number})
        assert response.status_code == 400


def test_filters_of_the_corrections(visitor: Visitor, application: OvamApplication) -> None:
    fail(application, 1)
    correction(application, 2, labels=("blue",))
    assert "The image is gone." in visitor.get("/pages/corrections", state="failed").text
    assert "The image is gone." not in visitor.get("/pages/corrections", state="pending").text
    assert "The image is gone." not in visitor.get("/pages/corrections", name="blue").text
    assert "No correction matches" in visitor.get("/pages/corrections", scope="default/77").text


def test_a_job_that_waits_for_its_next_try_can_be_tried_now(visitor: Visitor, application: OvamApplication) -> None:
    stored = correction(application)
    job = application.store.claim_job("w")
    assert job is not None
    later = datetime.now(UTC) + timedelta(hours=5, minutes=30)
    application.store.retry_job(job.id, run_after=later, message="Label Studio is not reachable.")
    page = visitor.get("/pages/jobs")
    assert "Label Studio is not reachable." in page.text and "again in 5 h" in page.text
    assert "Label Studio is not reachable." in visitor.get("/pages/corrections").text
    visitor.send(page, "/pages/jobs", again=job.id)
    assert application.store.get_job(job.id).state == "cancelled"
    (queued,) = application.store.list_jobs(states=("queued",))
    assert queued.payload["correction_id"] == stored.id and queued.run_after <= datetime.now(UTC)


def test_a_job_can_be_cancelled_and_its_correction_learned_after_all(
    visitor: Visitor, application: OvamApplication
) -> None:
    stored = correction(application)
    (job,) = application.store.list_jobs()
    page = visitor.send(visitor.get("/pages/jobs"), "/pages/jobs", cancel=job.id)
    assert application.store.get_job(job.id).state == "cancelled" and "Cancelled by local." in page.text
    corrections = visitor.get("/pages/corrections")
    assert "Nothing is going to learn it" in corrections.text
    visitor.send(corrections, "/pages/corrections", again=stored.id)
    assert len(application.store.list_jobs(states=("queued",))) == 1
    visitor.send(visitor.get("/pages/jobs"), "/pages/jobs", cancel=job.id, status=400)


def test_jobs_of_other_kinds_are_shown_and_tried_again(visitor: Visitor, application: OvamApplication) -> None:
    made = application.store.add_job("sweep", {"odd": [1, {"deep": None}], "labels": "text", "correction_id": "7"})
    claimed = application.store.claim_job("w", ("sweep",))
    assert claimed is not None
    application.store.finish_job(made.id, state="failed", message="<b>no</b>")
    page = visitor.get("/pages/jobs", state="failed")
    assert "<b>no</b>" in page.text and not page.all("b", **{"class": "x"})
    visitor.send(page, "/pages/jobs", again=made.id)
    (queued,) = application.store.list_jobs(states=("queued",))
    assert (queued.kind, queued.payload) == ("sweep", made.payload)


def test_progress_is_shown_while_work_runs(visitor: Visitor, application: OvamApplication) -> None:
    correction(application)
    job = application.store.claim_job("w")
    assert job is not None
    application.store.update_job(job.id, progress=0.4, message="Learning 'red': epoch 12")
    page = visitor.get("/pages/jobs")
    assert "epoch 12" in page.text and "40 %" in page.text
    assert page.all("progress", value="0.4") and page.all("div", **{"hx-trigger": "every 3s"})
    assert "epoch 12" in visitor.get("/pages/corrections").text
    application.store.finish_job(job.id, state="done")
    assert not visitor.get("/pages/jobs").all(
        "div", **{"hx-trigger": "every 3s"}
    )  # nothing moves, nothing is asked for


def test_where_annotators_disagree_a_person_decides(visitor: Visitor, application: OvamApplication) -> None:
    assert "Annotators disagree" not in visitor.get("/pages/corrections").text
    left = np.zeros((8, 8), bool)
    left[:, :4] = True
    ids = []
    for number, (who, mask) in enumerate((("ann", left), ("bea", ~left)), 1):
        stored = correction(application, number, task_id="7", annotator=who, labels=("tea: pot",))
        application.store.put_correction_masks(
            [CorrectionMask(stored.id, "tea: pot", "positive", mask, np.zeros_like(mask))]
        )
        ids.append(stored.id)
    page = visitor.get("/pages/corrections", scope="default/2")
    assert "Annotators disagree" in page.text and "neither" in page.text and "by ann" in page.text
    first, second = ids
    choices = [f"{first}:{second}:tea: pot", f"{second}:{first}:tea: pot"]
    assert [a["value"] for a in page.all("button", name="teaches")] == choices
    page = visitor.send(page, "/pages/corrections", teaches=choices[1])
    assert f"{second} by local" in page.text and "neither" not in page.text
    assert [a["value"] for a in page.all("button", name="teaches")] == choices[:1], "it can be turned round"
    (job,) = application.store.list_jobs(kinds=("review",))
    assert job.payload["label"] == "tea: pot"
    for wrong in ("1", "x:1:tea: pot", f"{first}:{second}:", f"{first}:{first}:tea: pot", f"{first}:{second}:cup"):
        visitor.send(page, "/pages/corrections", teaches=wrong, status=400)
    visitor.send(page, "/pages/corrections", teaches=f"99:{second}:tea: pot", status=404)
    assert "Annotators disagree" not in visitor.get("/pages/corrections", name="cup").text
