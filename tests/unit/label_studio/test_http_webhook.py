from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from protocol_helpers import DrawnApplication, annotation_event, brush, captured, half, predict_body, task

from ovam_labeler.tools.label_studio.app import create_app
from token_store.contract import StoreFullError
from token_store.entities import Scope

SCOPE = Scope("default", "2")


def post(client: Any, event: dict[str, Any], path: str = "/webhook", **options: Any) -> Any:
    return client.post(path, json=event, **options)


def states(application: DrawnApplication, scope: Scope = SCOPE) -> list[str]:
    return [c.state for c in application.store.list_corrections(scope)]


def test_a_correction_and_its_job_are_stored_and_the_worker_woken(client: Any, application: DrawnApplication) -> None:
    answer = post(client, annotation_event([brush("disc", half())]))
    assert answer.status_code == 201 and answer.json["labels"] == ["disc"]
    correction = application.store.get_correction(answer.json["correction"])
    assert (correction.state, correction.labels, correction.task_id) == ("pending", ("disc",), "1")
    job = application.store.get_job(answer.json["job"])
    assert (job.kind, job.state) == ("learn", "queued") and application.notified == 1


def test_replays_are_recognised(client: Any, application: DrawnApplication) -> None:
    event = annotation_event([brush("disc", half())])
    assert post(client, event).status_code == 201
    again = post(client, event)
    assert again.status_code == 200 and again.json["status"] == "ignored"
    assert len(application.store.list_jobs()) == 1 and application.notified == 1


def test_an_update_replaces_and_one_that_teaches_nothing_takes_back(client: Any, application: DrawnApplication) -> None:
    post(client, annotation_event([brush("disc", half())], updated_at="2026-11-22T20:00:00Z"))
    post(client, annotation_event([brush("bar", half())], "ANNOTATION_UPDATED", updated_at="2026-11-22T20:00:01Z"))
    assert states(application) == ["pending", "retracted"]
    skip = annotation_event([], "ANNOTATION_UPDATED", updated_at="2026-11-22T20:00:02Z", was_cancelled=True)
    assert post(client, skip).json["status"] == "ignored"
    assert states(application) == ["ignored", "retracted", "retracted"]


def test_skips_and_untouched_predictions_teach_nothing(client: Any, application: DrawnApplication) -> None:
    made = client.post("/predict", json=predict_body([task(1)])).json["results"][0]["result"]
    untouched = [region | {"origin": "prediction"} for region in made]
    assert post(client, annotation_event(untouched, parent_prediction=9)).json["status"] == "ignored"
    assert post(client, annotation_event([], was_cancelled=True, parent_prediction=9, id=6)).status_code == 200
    assert states(application) == ["ignored", "ignored"] and application.store.list_jobs() == []
    (outcome, *others) = application.store.list_outcomes(SCOPE)
    assert outcome.kept and outcome.iou == 1.0 and len(others) == 1


def test_an_older_state_that_arrives_late_counts_no_more(client: Any, application: DrawnApplication) -> None:
    """Of an annotation that was corrected, then skipped; of one that was corrected, then deleted."""
    early, late = "2026-11-22T20:00:00Z", "2026-11-22T20:00:05Z"
    corrected = annotation_event([brush("disc", half())], updated_at=early)
    post(client, annotation_event([], "ANNOTATION_UPDATED", updated_at=late, was_cancelled=True))
    assert post(client, corrected).json["reason"] == "A later state of this annotation is known already."
    deleted = captured("webhook_ANNOTATIONS_DELETED") | {"annotations": [{"id": 77}]}
    assert post(client, deleted).json["corrections"] == []
    gone = annotation_event([brush("disc", half())], updated_at=late, id=77)
    assert post(client, gone).json["status"] == "ignored"
    assert application.store.list_jobs() == [] and application.notified == 0


def test_an_emptied_prediction_is_stored_as_a_correction_of_all_its_labels(client: Any) -> None:
    client.post("/predict", json=predict_body([task(1)]))
    answer = post(client, annotation_event([], parent_prediction=9))
    assert answer.status_code == 201 and answer.json["labels"] == ["disc", "bar"]


def test_connections_keep_apart(client: Any, application: DrawnApplication) -> None:
    event = annotation_event([brush("disc", half())])
    assert post(client, event, "/c/team-a/webhook").status_code == 201
    assert post(client, event).status_code == 201
    assert states(application, Scope("team-a", "2")) == states(application) == ["pending"]


def test_deleted_annotations_and_tasks_are_retracted(client: Any, application: DrawnApplication) -> None:
    for number in (1, 2, 3):
        post(client, annotation_event([brush("disc", half())], task_id=number, id=number))
    deleted = captured("webhook_ANNOTATIONS_DELETED")
    assert len(post(client, deleted).json["corrections"]) == 1
    assert len(post(client, captured("webhook_TASKS_DELETED")).json["corrections"]) == 1  # of task 3
    known = application.store.known_annotations(SCOPE)
    assert sorted(k.state for k in known) == ["pending", "retracted", "retracted"]
    assert post(client, deleted).json["corrections"] == []
    # Their class is judged again without them, once.
    (job,) = application.store.list_jobs(kinds=["review"])
    assert job.payload == {"connection": SCOPE.connection, "project": SCOPE.project, "label": "disc"}


def test_a_label_no_longer_in_an_annotation_is_judged_again(client: Any, application: DrawnApplication) -> None:
    post(client, annotation_event([brush("disc", half()), brush("bar", ~half(), "r1")], id=1))
    later = annotation_event([brush("disc", half())], id=1, updated_at="2026-12-01T00:00:00.000000Z")
    post(client, later | {"action": "ANNOTATION_UPDATED"})
    (job,) = application.store.list_jobs(kinds=["review"])
    assert job.payload["label"] == "bar"


@pytest.mark.parametrize("name", ["START_TRAINING", "PROJECT_UPDATED"])
def test_other_captured_events_are_answered(client: Any, name: str) -> None:
    answer = post(client, captured(f"webhook_{name}"))
    assert answer.status_code == 200 and answer.json["reason"].endswith(".")


def test_unknown_events_are_ignored(client: Any) -> None:
    answer = post(client, captured("webhook_PROJECT_UPDATED") | {"action": "TASKS_CREATED"})
    assert answer.status_code == 200 and "TASKS_CREATED" in answer.json["reason"]


def test_a_project_that_does_not_learn_keeps_its_corrections(client: Any, application: DrawnApplication) -> None:
    application.store.put_project_options(SCOPE, {"learning": False})
    answer = post(client, annotation_event([brush("disc", half())]))
    assert answer.status_code == 201 and answer.json["job"] is None and application.notified == 0


def test_a_full_disk_is_507_and_nothing_is_acknowledged(
    client: Any, application: DrawnApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = application.store.add_correction

    def full(*_: Any, **__: Any) -> None:
        raise StoreFullError("The disk is full; nothing was written.")

    monkeypatch.setattr(application.store, "add_correction", full)
    event = annotation_event([brush("disc", half())])
    answer = post(client, event)
    assert answer.status_code == 507 and answer.json["error"]["code"] == "disk_full"
    monkeypatch.setattr(application.store, "add_correction", kept)
    assert post(client, event).status_code == 201


def test_masks_are_not_decoded_in_the_request(client: Any) -> None:
    lying = brush("disc", half())
    lying["value"]["rle"] = [255] * 20
    assert post(client, annotation_event([lying])).status_code == 201  # kept as it came; the worker says what is wrong


@pytest.mark.parametrize(
    "change",
    [
        {"action": None},
        {"action": 5},
        {"annotation": None},
        {"annotation": {"id": []}},
        {"task": "x"},
        {"task": {"id": 1, "data": []}},
        {"project": {}},
        {"project": {"id": True}},
        {"project": {"id": 2, "label_config": "<View/>"}},
    ],
)
def test_bad_events_are_4xx_and_the_server_lives(
    client: Any, application: DrawnApplication, change: dict[str, Any]
) -> None:
    answer = post(client, annotation_event([brush("disc", half())]) | change)
    assert 400 <= answer.status_code < 500 and answer.json["error"]["message"].endswith(".")
    assert states(application) == [] and client.get("/health").status_code == 200


SECRET = "s3cret-ü"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"X-OVAM-Secret": "plain"}}, 201),
        ({"headers": {"Authorization": "Basic " + base64.b64encode(b"any:plain").decode()}}, 201),
        ({"query_string": {"secret": "plain"}}, 201),
        ({}, 401),
        ({"headers": {"X-OVAM-Secret": "Plain"}}, 401),
        ({"headers": {"X-OVAM-Secret": ""}}, 401),
        ({"headers": {"Authorization": "Basic " + base64.b64encode(b"plain:other").decode()}}, 401),
        ({"headers": {"Authorization": "Bearer plain"}}, 401),
        ({"query_string": {"secret": SECRET}}, 401),
    ],
)
def test_the_secret(make_application: Callable[..., DrawnApplication], options: dict[str, Any], status: int) -> None:
    application = make_application(webhook_secret="plain")
    client = create_app(application).test_client()  # type: ignore[arg-type]
    answer = post(client, annotation_event([brush("disc", half())]), **options)
    assert answer.status_code == status
    assert "plain" not in answer.text and len(states(application)) == (status == 201)


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 201),
        ("::1", {}, 201),
        ("::ffff:127.0.0.1", {}, 201),
        ("192.168.1.5", {}, 401),
        ("203.0.113.9", {}, 401),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, 401),
    ],
)
def test_without_a_secret_only_this_machine(client: Any, peer: str, headers: dict[str, str], status: int) -> None:
    event = annotation_event([brush("disc", half())])
    answer = post(client, event, environ_base={"REMOTE_ADDR": peer}, headers=headers)
    assert answer.status_code == status
