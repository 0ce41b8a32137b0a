"""Corrections out of a task's annotations, read with CVAT's SDK from a server that keeps what its driver uploaded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from colour_model import box
from cvat_sdk.core.client import Client
from cvat_server import SCOPE, CvatTask

from ovam_labeler.application import OvamApplication
from ovam_labeler.disagreements import disagreements
from ovam_labeler.domain import Label
from ovam_labeler.tools.cvat import masks
from ovam_labeler.tools.cvat.labels import parse_labels
from ovam_labeler.tools.cvat.pull import Pulled
from ovam_labeler.tools.cvat.pull import pull as pull_task
from ovam_labeler.tools.cvat.tool import CvatTool

GREEN = masks.encode(box(16, 16, 24, 32))


@pytest.fixture
def pull(application: OvamApplication, client: Client) -> Callable[..., Pulled]:
    tool = application.decoders["cvat"]
    assert isinstance(tool, CvatTool)
    return lambda **how: pull_task(application, tool, client, 1, SCOPE, **how)


def learned(application: OvamApplication) -> None:
    application.start_worker()
    end = time.monotonic() + 60
    while application.store.list_jobs(states=("queued", "running"), limit=1):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_drawn_mask_is_learned_and_found_on_the_next_picture(
    annotate: Callable[..., None], pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    annotate()
    assert {s["frame"] for s in task.shapes} == {0}, "'thing' is no word"
    task.draw(1, "thing", GREEN)
    ((correction, job),) = pull().stored
    assert correction.labels == ("thing",) and correction.annotator == "ann" and job is not None
    learned(application)
    assert application.store.get_correction(correction.id).state == "learned"
    annotate(clear_existing=True)
    assert {(s["frame"], s["label_id"]) for s in task.shapes} >= {(2, task.label_id("thing"))}


def test_proposals_left_as_they_were_teach_nothing_and_cost_no_download(
    annotate: Callable[..., None], pull: Callable[..., Pulled], task: CvatTask
) -> None:
    annotate()
    task.asked.clear()
    pulled = pull()
    assert (pulled.stored, pulled.unchanged, pulled.retracted, pulled.notes) == ([], 0, [], [])
    assert not [a for a in task.asked if "/data/" in a and "meta" not in a]


def test_a_proposal_that_was_changed_teaches_all_of_its_label(
    annotate: Callable[..., None], pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    annotate()
    task.shapes[0] |= {"points": [float(v) for v in masks.encode(box(16, 16, 24, 40))], "source": "semi-auto"}
    task.draw(0, "red", masks.encode(box(50, 2, 8, 8)), source="auto")
    ((correction, _),) = pull().stored
    image, _ = application.decoders["cvat"].image_of(correction)
    truths, notes = application.decoders["cvat"].truths_of(correction, image)
    assert notes == [] and [(t.label, t.kind) for t in truths] == [("red", "positive")]
    assert (truths[0].mask == (box(16, 16, 24, 40) | box(50, 2, 8, 8))).all()
    assert image.sha256 == correction.image_ref.removeprefix("kept:")


def test_a_deleted_proposal_says_that_the_class_is_not_there_when_the_job_is_done(
    annotate: Callable[..., None], pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    annotate("red=green,thing=red")
    deleted = next(s for s in task.shapes if s["frame"] == 1)
    task.shapes.remove(deleted)
    assert pull(deletions=True).stored == [], "the annotator may still be at it"
    task.state = "completed"
    assert pull().stored == [], "nobody has said that the proposals were saved"
    ((correction, _),) = pull(deletions=True).stored
    image, _ = application.decoders["cvat"].image_of(correction)
    truths, _ = application.decoders["cvat"].truths_of(correction, image)
    assert [(t.label, t.kind) for t in truths] == [("red", "negative")]


def test_proposals_that_were_never_handed_over_are_not_deleted(
    annotate: Callable[..., None], pull: Callable[..., Pulled], task: CvatTask
) -> None:
    annotate()
    task.shapes.clear()  # as when the upload failed after every picture was predicted
    task.state = "completed"
    assert pull(deletions=True).stored == []


def test_pulling_again_stores_what_has_changed_and_takes_back_what_is_gone(
    pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    task.draw(1, "thing", GREEN)
    ((first, _),) = pull().stored
    task.saved = "2026-11-27T07:00:00.000000Z"  # saved again as it was, under another id
    task.shapes[0]["id"] += 50
    again = pull()
    assert (again.stored, again.unchanged) == ([], 1)
    task.shapes[0]["points"] = masks.encode(box(20, 20, 10, 10))
    ((second, _),) = pull().stored
    task.shapes[0]["points"] = GREEN  # and back, within the same moment
    ((third, _),) = pull().stored
    states = [application.store.get_correction(c.id).state for c in (first, second, third)]
    assert states == ["retracted", "retracted", "pending"]
    task.shapes.clear()
    assert [c.id for c in pull().retracted] == [third.id]
    assert pull().retracted == []


def test_taking_back_the_only_correction_takes_the_token_back(
    pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    task.draw(1, "thing", GREEN)
    pull()
    learned(application)
    assert "thing" in application.store.find_active(SCOPE, ["thing"])
    task.shapes.clear()
    pull()
    learned(application)
    assert application.store.find_active(SCOPE, ["thing"]) == {}


def test_shapes_that_are_no_masks_are_one_sentence_and_spoil_their_label_only(
    pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    task.draw(1, "thing", [1.0, 1.0, 9.0, 9.0], kind="rectangle")
    task.draw(1, "red", [16.0, 16.0, 48.0, 16.0, 48.0, 40.0, 16.0, 40.0], kind="polygon")
    ((correction, _),) = pull().stored
    image, _ = application.decoders["cvat"].image_of(correction)
    truths, notes = application.decoders["cvat"].truths_of(correction, image)
    assert [t.label for t in truths] == ["red"] and (truths[0].mask == box(16, 16, 24, 32)).all()
    assert len(notes) == 1 and "'rectangle'" in notes[0]


def test_annotators_of_two_frames_do_not_disagree(
    pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    task.annotators = ["ann", "bob"]
    task.draw(0, "thing", masks.encode(box(2, 2, 10, 10)))
    task.draw(1, "thing", GREEN)
    assert [c.annotator for c, _ in pull().stored] == ["ann", "bob"]
    learned(application)
    assert disagreements(application.store, SCOPE) == []
    assert {c.state for c in application.store.list_corrections(SCOPE)} == {"learned"}


def test_what_is_no_mask_stops_nothing_and_words_come_from_an_attribute(
    pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask
) -> None:
    prompt = {"id": 1, "name": "prompt", "input_type": "text", "mutable": False, "values": ["green"]}
    task.labels[1]["attributes"] = [{**prompt, "default_value": "green"}, {**prompt, "id": 2, "name": "side"}]
    skeleton = {"id": 9, "type": "skeleton", "label_id": task.label_id("red"), "frame": 1, "source": "manual"}
    task.shapes.append({**skeleton, "attributes": [], "elements": [], "occluded": False})
    task.draw(1, "thing", GREEN)
    ((correction, _),) = pull().stored
    assert parse_labels(json.dumps(correction.payload["labels"])).labels[1] == Label("thing", "green")
    image, _ = application.decoders["cvat"].image_of(correction)
    truths, notes = application.decoders["cvat"].truths_of(correction, image)
    assert [t.label for t in truths] == ["thing"] and len(notes) == 1 and "'skeleton'" in notes[0]


def test_learning_may_be_off(pull: Callable[..., Pulled], application: OvamApplication, task: CvatTask) -> None:
    application.store.change_project_options(SCOPE, {"learning": False}, who="test", why="test")
    task.draw(1, "thing", GREEN)
    ((correction, job),) = pull().stored
    assert correction.state == "pending" and job is None
