from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from protocol_helpers import (
    CONFIG,
    DrawnApplication,
    annotation_event,
    brush,
    captured,
    data_uri,
    half,
    predict_body,
    task,
)

from ovam_labeler.errors import ModelError
from ovam_labeler.options import project_options
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.rle import decode_mask
from token_store.contract import StoreFullError
from token_store.entities import Scope

SCOPE = Scope("default", "2")


def setup_body(**changes: Any) -> dict[str, Any]:
    return captured("setup") | changes


def results(client: Any, body: dict[str, Any], path: str = "/predict") -> list[Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.json
    return list(answer.json["results"])


def test_health_versions_and_status(client: Any) -> None:
    for prefix in ("", "/c/team-a"):
        assert client.get(f"{prefix}/health").json["status"] == "UP"
        assert client.get(f"{prefix}/versions").json["versions"] == []
    status = client.get("/").json
    assert status["state"] == "ready" and status["jobs"] == {"queued": 0, "running": 0, "failed": 0}


def test_setup_and_predict_say_the_same_version(client: Any) -> None:
    version = client.post("/setup", json=setup_body()).json["model_version"]
    made = results(client, predict_body([task(1), task(2)]))
    assert version and {entry["model_version"] for entry in made} == {version}


def test_masks_have_the_images_own_size_and_order(client: Any) -> None:
    tasks = [task(1), {"id": 2, "data": {"image": data_uri(50, 20)}}]
    first, second = results(client, predict_body(tasks))
    for entry, (height, width) in ((first, (24, 32)), (second, (50, 20))):
        region = entry["result"][0]
        mask = decode_mask(region["value"]["rle"], height, width)
        assert (region["original_height"], region["original_width"]) == (height, width)
        assert np.array_equal(np.flatnonzero(mask[0]), np.arange(0, width, 3))


def test_a_picture_turned_by_exif_gets_regions_of_its_upright_size(client: Any) -> None:
    """A 320x240 JPEG with orientation 6 is 240x320 in the editor, which shows nothing of a 320x240 mask."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (320, 240), (90, 120, 30)).save(buffer, "JPEG", exif=exif)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    (made,) = results(client, predict_body([{"id": 1, "data": {"image": url}}]))
    region = made["result"][0]
    assert (region["original_height"], region["original_width"], region["image_rotation"]) == (320, 240, 0)
    assert decode_mask(region["value"]["rle"], 320, 240).any()


def test_captured_request_with_unreachable_images_skips_each_task(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert results(client, captured("predict")) == [[], [], []]
    assert "OVAM_LABEL_STUDIO_URL" in caplog.text


def test_a_bad_task_is_skipped_and_the_others_kept(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    bad: list[Any] = [
        {"id": 5, "data": {"image": "data:image/png;base64,AAAA"}},
        {"id": 6, "data": {}},
        {"id": None, "data": {"image": data_uri()}},
        "no task",
        {"id": 7, "data": {"image": "s3://bucket/a.png"}},
    ]
    made = results(client, predict_body([task(1), *bad, task(2)]))
    assert [bool(entry) for entry in made] == [True, False, False, False, False, False, True]
    assert "no image that can be read" in caplog.text and "'s3://bucket/a.png' lies in a bucket" in caplog.text
    assert "Traceback" not in caplog.text


def test_an_unexpected_failure_skips_the_task(client: Any, application: DrawnApplication) -> None:
    def fail() -> None:
        raise RuntimeError("secret detail")

    application.proposer.before_return = fail
    answer = client.post("/predict", json=predict_body([task(1)]))
    assert answer.json == {"results": [[]]} and "secret detail" not in answer.text


def test_a_model_that_cannot_be_loaded_is_said_once(client: Any, application: DrawnApplication) -> None:
    def fail() -> None:
        raise ModelError("OVAM_MODEL /nowhere is no folder; set it to one.")

    application.proposer.before_return = fail
    answer = client.post("/predict", json=predict_body([task(1)]))
    assert answer.status_code == 503 and answer.json["error"] == {
        "code": "model",
        "message": "OVAM_MODEL /nowhere is no folder; set it to one.",
    }
    assert "OVAM_MODEL" in answer.status


def test_equal_requests_in_flight_are_joined_and_answered_from_memory_later(
    client: Any, app: Any, application: DrawnApplication
) -> None:
    gate, entered = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        gate.wait(10)

    application.proposer.before_return = wait
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(results, app.test_client(), predict_body([task(1), task(2)])) for _ in range(2)]
        assert entered.wait(10)
        gate.set()
        first, second = (future.result() for future in asked)
    assert first == second == results(client, predict_body([task(1), task(2)]))
    assert application.proposer.calls == 2
    application.proposer.generation += 1
    assert results(client, predict_body([task(1), task(2)])) != first and application.proposer.calls == 4


def test_a_token_that_becomes_active_meanwhile_gives_the_new_version(
    client: Any, application: DrawnApplication
) -> None:
    def learn() -> None:
        application.proposer.generation = 1

    application.proposer.before_return = learn
    made = results(client, predict_body([task(1)]))
    assert made[0]["model_version"] == client.post("/setup", json=setup_body()).json["model_version"]
    assert application.proposer.calls == 2


def test_a_batch_over_the_budget_is_answered_with_exactly_one(
    make_application: Callable[..., DrawnApplication],
) -> None:
    application = make_application(predict_budget=10.0)
    seconds = iter(range(0, 10_000, 3))  # every look at the clock is three seconds later
    service = PredictService(application, application.tool, clock=lambda: float(next(seconds)))  # type: ignore[arg-type]
    tasks = [task(n) for n in range(1, 21)]
    assert len(service.answer(SCOPE, CONFIG, tasks)) == 1
    assert application.proposer.calls < 20
    assert application.store.last_served(SCOPE, "1") is not None
    assert application.store.last_served(SCOPE, "2") is None
    assert len(service.answer(SCOPE, CONFIG, tasks[:1])) == 1
    steady = PredictService(application, application.tool, clock=lambda: 0.0)  # type: ignore[arg-type]
    assert len(steady.answer(SCOPE, CONFIG, tasks)) == 20


def test_what_was_served_is_remembered(client: Any, application: DrawnApplication) -> None:
    made = results(client, predict_body([task(1)]), "/c/team-a/predict")
    served = application.store.last_served(Scope("team-a", "2"), "1")
    assert served is not None and served.model_version == made[0]["model_version"]
    assert dict(served.regions) == {r["id"]: r["value"]["brushlabels"][0] for r in made[0]["result"]}
    assert application.store.last_served(SCOPE, "1") is None


def test_masks_are_served_although_the_disk_is_full(
    client: Any, application: DrawnApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreFullError("The disk is full.")

    monkeypatch.setattr(application.store, "put_served", full)
    assert results(client, predict_body([task(1)]))[0]["result"]


def test_absent_labels_are_not_painted(client: Any, application: DrawnApplication) -> None:
    application.proposer.absent = {"disc", "bar"}
    assert results(client, predict_body([task(1)]))[0]["result"] == []


def test_extra_params_are_the_projects_options(
    client: Any, application: DrawnApplication, caplog: pytest.LogCaptureFixture
) -> None:
    before = client.post("/setup", json=setup_body()).json
    extra = {"overlap": "independent", "threshold": 7, "unheard": 1}
    after = client.post("/setup", json=setup_body(extra_params=extra)).json
    assert before != after and after["model_version"].endswith("independent")
    assert application.store.get_project_options(SCOPE) == {"extra_params": {"overlap": "independent"}}
    assert "'threshold'" in caplog.text and "'unheard'" in caplog.text
    assert client.post("/setup", json=setup_body(extra_params='{"overlap": "exclusive"}')).json == before
    for odd in ("{", [1], 5, "[]", None):
        assert client.post("/setup", json=setup_body(extra_params=odd)).status_code == 200


def test_extra_params_go_before_the_pages_options_and_give_way_when_they_are_taken_back(
    client: Any, application: DrawnApplication
) -> None:
    store = application.store

    def overlap_and_push() -> tuple[str, int]:
        options = project_options(application.settings, store.get_project_options(SCOPE))
        return options.overlap, options.push

    client.post("/setup", json=setup_body())
    assert [p.scope for p in store.list_projects()] == [SCOPE], "the pages know the project before its first correction"
    assert [row[1] for row in store.get_note(SCOPE, "labels")["labels"]] == ["disc", "bar"]
    store.change_project_options(SCOPE, {"overlap": "independent", "push": 3}, who="ann")
    client.post("/setup", json=setup_body(extra_params={"overlap": "exclusive"}))
    assert overlap_and_push() == ("exclusive", 3)
    store.change_project_options(SCOPE, {"overlap": "independent"}, who="ann")
    client.post("/setup", json=setup_body(extra_params={"overlap": "exclusive"}))
    assert overlap_and_push() == ("exclusive", 3), "what the pages say later does not go before it"
    without = setup_body()
    without.pop("extra_params", None)
    client.post("/setup", json=without)
    assert overlap_and_push() == ("exclusive", 3)
    client.post("/setup", json=setup_body(extra_params=None))
    assert overlap_and_push() == ("independent", 3)
    assert all(e["what"] == "project.options" for e in store.audit(scope=SCOPE))


def test_classes_that_are_not_listed_are_not_proposed_and_are_learned_once_they_are(
    client: Any, application: DrawnApplication
) -> None:
    store = application.store
    both = client.post("/setup", json=setup_body()).json
    only = client.post("/setup", json=setup_body(extra_params={"classes": ["bar"]})).json
    assert only != both
    made = results(client, predict_body([task(1)]))[0]
    assert [r["value"]["brushlabels"] for r in made["result"]] == [["bar"]]
    assert made["model_version"] == only["model_version"]
    assert client.post("/webhook", json=annotation_event([brush("disc", half())])).status_code == 201
    assert [c.labels for c in store.list_corrections(SCOPE)] == [("disc",)], "what a human drew is kept"
    assert store.list_jobs(kinds=("review",)) == []
    assert client.post("/setup", json=setup_body(extra_params={"classes": ["bar", "disc"]})).json == both
    assert [job.payload["label"] for job in store.list_jobs(kinds=("review",))] == ["disc"]
    client.post("/setup", json=setup_body(extra_params={"classes": ["bar", "disc"]}))
    assert len(store.list_jobs(kinds=("review",))) == 1
    # A label renamed in Label Studio, its extra parameters forgotten.
    renamed = setup_body()["schema"].replace('"disc"', '"ring"')
    client.post("/setup", json=setup_body(extra_params={"classes": ["disc"]}))
    client.post("/setup", json=setup_body(schema=renamed, extra_params={"classes": ["disc"]}))
    assert project_options(application.settings, store.get_project_options(SCOPE)).classes == ("ring",)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/setup", {"project": "2.1", "schema": "<View></View>"}, 422),
        ("/setup", {"project": "2.1"}, 422),
        ("/setup", {"project": None, "schema": CONFIG}, 400),
        ("/setup", {"project": "../../etc", "schema": CONFIG}, 400),
        ("/setup", [], 400),
        ("/c/-bad-/setup", {"project": "2.1", "schema": CONFIG}, 400),
        ("/predict", {"project": "2.1", "label_config": CONFIG, "tasks": 5}, 400),
        ("/predict", {"project": "2.1", "label_config": "<View/>", "tasks": []}, 422),
        ("/predict", {"tasks": []}, 400),
        ("/nowhere", {}, 404),
        ("/health", {}, 405),
    ],
)
def test_bad_requests_are_one_sentence_and_the_server_lives(client: Any, path: str, body: Any, status: int) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert answer.json["error"]["code"] and answer.json["error"]["message"].endswith(".")
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"project": NaN}', b'{"a": Infinity}', b"[" * 100_000, b"\xff\xfe", b"1" * 5000]
)
def test_bodies_that_are_no_json(client: Any, raw: bytes) -> None:
    for path in ("/setup", "/predict", "/webhook"):
        answer = client.post(path, data=raw, content_type="application/json")
        assert answer.status_code == 400 and answer.json["error"]["message"].endswith(".")


def test_only_json_is_taken(client: Any) -> None:
    for path in ("/setup", "/predict", "/webhook"):
        assert client.post(path, data="{}", content_type="text/plain").status_code == 400


def test_requests_larger_than_allowed(application: DrawnApplication) -> None:
    app = create_app(application)  # type: ignore[arg-type]
    app.config["MAX_CONTENT_LENGTH"] = 1000
    answer = app.test_client().post("/predict", json=predict_body([task(1)]) | {"fill": "x" * 2000})
    assert answer.status_code == 413 and "1000 bytes" in answer.json["error"]["message"]
