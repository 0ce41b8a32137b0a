"""What Label Studio 1.23.2 really sends is answered as it expects, with credentials or without."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_helpers import HERE, DrawnApplication, annotation_event, brush, half, predict_body, task

from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.regions import read_regions, region_mask

SECRET = "of-this-test"
CAPTURES = sorted(path.stem for path in (HERE / "captures").glob("*.json"))

#: What is answered: HTTP status, and the fields that Label Studio reads.
ANSWERS: dict[str, tuple[int, set[str]]] = {
    "health": (200, {"status"}),
    "versions": (200, {"versions"}),
    "setup": (200, {"model_version"}),
    "predict": (200, {"results"}),
    # Its picture is in a Label Studio that is not there.
    "predict_interactive_keypointlabels": (424, {"error"}),
    "predict_interactive_rectanglelabels": (424, {"error"}),
    "webhook_ANNOTATION_CREATED": (201, {"status", "correction"}),
    "webhook_ANNOTATION_CREATED_from_ui_prediction_changed": (201, {"status", "correction"}),
    "webhook_ANNOTATION_UPDATED": (201, {"status", "correction"}),
    "webhook_ANNOTATIONS_DELETED": (200, {"status"}),
    "webhook_PROJECT_UPDATED": (200, {"status"}),
    "webhook_START_TRAINING": (200, {"status"}),
    "webhook_TASKS_DELETED": (200, {"status"}),
}


def credentials(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"label-studio:{password}".encode()).decode()}


@pytest.mark.parametrize("prefix", ["", "/c/team-a"])
@pytest.mark.parametrize("name", CAPTURES)
def test_each_captured_request(client: Any, name: str, prefix: str) -> None:
    status, fields = ANSWERS[name]
    request = json.loads((HERE / "captures" / f"{name}.json").read_text("utf-8"))
    answer = client.open(f"{prefix}{request['path']}", method=request["method"], json=request.get("body"))
    assert answer.status_code == status, answer.text
    assert fields <= set(answer.json)


@pytest.mark.parametrize("prefix", ["", "/c/team-a"])
def test_credentials_in_the_backends_url_open_every_route(
    make_application: Callable[..., DrawnApplication], prefix: str
) -> None:
    """Label Studio sends them to all four (measured); only the webhook needs them."""
    client = create_app(make_application(webhook_secret=SECRET)).test_client()  # type: ignore[arg-type]
    event = annotation_event([brush("disc", half())])
    setup = json.loads((HERE / "captures" / "setup.json").read_text("utf-8"))["body"]
    asked = [("GET", "/health", None), ("POST", "/setup", setup), ("POST", "/predict", predict_body([task(1)]))]
    for headers in (credentials(SECRET), credentials("a proxy's"), {}):
        for method, path, body in asked:
            answer = client.open(f"{prefix}{path}", method=method, json=body, headers=headers)
            assert answer.status_code == 200, (path, answer.text)
    given = [
        client.post(f"{prefix}/webhook", json=event, headers=h) for h in ({}, credentials("x"), credentials(SECRET))
    ]
    assert [answer.status_code for answer in given] == [401, 401, 201]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(
    tasks=st.lists(
        st.one_of(
            st.integers(1, 5).map(task),
            st.just({"id": 9, "data": {"image": "/data/upload/2/none.png"}}),
            st.sampled_from([None, {}, [], {"id": None}, {"id": 3, "data": {}}]),
        ),
        max_size=5,
    ),
    absent=st.sets(st.sampled_from(["disc", "bar"])),
    version=st.integers(0, 3),
)
def test_one_null_version_or_score_would_lose_the_whole_batch(
    application: DrawnApplication, client: Any, tasks: list[Any], absent: set[str], version: int
) -> None:
    """As many answers as tasks, each ``[]`` or with a version that is text and a score in 0..1 (measured: else 400)."""
    application.proposer.absent, application.proposer.generation = absent, version
    results = client.post("/predict", json=predict_body(tasks)).json["results"]
    assert len(results) == len(tasks)
    for asked, answer in zip(tasks, results, strict=True):
        good = isinstance(asked, dict) and str(asked.get("data", {}).get("image", "")).startswith("data:")
        assert good == (answer != [])
        if not good:
            continue
        assert isinstance(answer["model_version"], str) and answer["model_version"]
        assert isinstance(answer["score"], float) and 0 <= answer["score"] <= 1
        assert all(0 <= region["score"] <= 1 for region in answer["result"])


def test_a_smart_request_that_fails_says_why(client: Any) -> None:
    """The reason goes to the editor: Label Studio answers it 200 with ``errors`` (measured)."""
    body = json.loads((HERE / "captures" / "predict_interactive_keypointlabels.json").read_text("utf-8"))["body"]
    body["tasks"][0]["data"]["image"] = "/data/upload/2/none.png"
    answer = client.post("/predict", json=body)
    sentence = answer.json["error"]["message"]
    assert answer.status_code == 424 and "none.png" in sentence and answer.status == f"424 {sentence}"


def test_soft_edges_of_strokes_are_cut_in_the_middle() -> None:
    """The editor's strokes have alpha 6..255 at their edges (measured): literal bytes in the stream."""
    alpha = (0, 6, 126, 127, 128, 254, 255, 0)
    words = [byte for value in alpha for byte in (255, 255, 255, value)]
    fields = [(len(words), 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4), (0, 1), (2, 2), (len(words) - 1, 8)]
    bits = "".join(f"{value:0{width}b}" for value, width in [*fields, *((word, 8) for word in words)])
    stroke = brush("disc", half(1, 8))
    stroke["value"]["rle"] = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    (region,), notes = read_regions([stroke])
    assert notes == [] and region_mask(region, 1, 8)[0].tolist() == [value > 127 for value in alpha]
