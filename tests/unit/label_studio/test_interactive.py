"""Smart tools: captured requests replayed, what is picked, and what the second click costs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from protocol_helpers import CONFIG, DrawnApplication, captured, data_uri
from served_application import COLOURS, ServedApplication, box, scene

from ovam_labeler.image_source import encode_png
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.interactive import read_clicks
from ovam_labeler.tools.label_studio.rle import decode_mask
from token_store.entities import Scope

SIZE = (240, 320)


@pytest.fixture
def drawn(application: DrawnApplication, monkeypatch: pytest.MonkeyPatch) -> DrawnApplication:
    """Labels whose mask is two discs, at the places that were clicked in the captures."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = ((columns - 64) ** 2 + (rows - 72) ** 2 <= 30**2) | ((columns - 229) ** 2 + (rows - 144) ** 2 <= 40**2)
    plain = application.proposer.propose

    def propose(image: Any, labels: Any, *args: Any, **kwargs: Any) -> Any:
        from dataclasses import replace

        drawn = [
            replace(p, mask=mask, soft=mask[::10, ::10].astype(np.float32))
            for p in plain(image, labels, *args, **kwargs)
        ]
        assert not args[1].presence and args[1].overlap == "independent" and [x.name for x in labels] == ["disc"]
        return drawn

    monkeypatch.setattr(application.proposer, "propose", propose)
    return application


def request_of(name: str, **context: Any) -> dict[str, Any]:
    body = json.loads(json.dumps(captured(name)))
    body["tasks"][0]["data"]["image"] = data_uri(*SIZE)
    body["params"]["context"]["result"][0] |= context
    return dict(body)


def answered(client: Any, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200 and len(answer.json["results"]) == 1
    return dict(answer.json["results"][0])


def mask_of(made: dict[str, Any]) -> np.ndarray:
    (region,) = made["result"]
    assert (region["from_name"], region["type"], region["value"]["brushlabels"]) == ("tag", "brushlabels", ["disc"])
    return decode_mask(region["value"]["rle"], *SIZE)


def test_a_captured_keypoint_picks_the_object_under_it(client: Any, drawn: DrawnApplication) -> None:
    made = answered(client, request_of("predict_interactive_keypointlabels"))  # at 20 %, 30 %
    mask = mask_of(made)
    assert mask[72, 64] and not mask[144, 229] and 0 <= made["score"] <= 1 and made["model_version"]


def test_a_captured_rectangle_clips(client: Any, drawn: DrawnApplication) -> None:
    mask = mask_of(answered(client, request_of("predict_interactive_rectanglelabels")))
    rows, columns = np.nonzero(mask)
    assert mask.any() and columns.min() >= 207 and columns.max() <= 250 and rows.min() >= 119 and rows.max() <= 168


def test_further_clicks_are_answered_from_memory_and_have_ids_of_their_own(
    client: Any, drawn: DrawnApplication
) -> None:
    body = request_of("predict_interactive_keypointlabels")
    first = answered(client, body)
    assert answered(client, body) == first
    moved = request_of("predict_interactive_keypointlabels", id="kp2")
    second = answered(client, moved)
    assert drawn.proposer.calls == 1
    assert second["result"][0]["value"] == first["result"][0]["value"]
    assert second["result"][0]["id"] != first["result"][0]["id"]
    drawn.proposer.generation += 1
    answered(client, body)
    assert drawn.proposer.calls == 2


def test_negative_points_subtract(client: Any, drawn: DrawnApplication) -> None:
    body = request_of("predict_interactive_keypointlabels")
    (point,) = body["params"]["context"]["result"]
    other = {**point, "id": "kp2", "value": {**point["value"], "x": 71.5, "y": 60.0}, "is_positive": False}
    rect = captured("predict_interactive_rectanglelabels")["params"]["context"]["result"][0]
    whole = {**rect, "value": {**rect["value"], "x": 0, "y": 0, "width": 100, "height": 100}}
    body["params"]["context"]["result"] = [whole, other]
    mask = mask_of(answered(client, body))
    assert mask[72, 64] and not mask[144, 229]
    body["params"]["context"]["result"] = [{**point, "is_positive": False}, other]
    assert answered(client, body)["result"] == []


def test_clicks_are_not_remembered_as_served(client: Any, drawn: DrawnApplication) -> None:
    answered(client, request_of("predict_interactive_rectanglelabels"))
    assert drawn.store.last_served(Scope("default", "28"), "66") is None


def test_a_label_that_no_control_draws_is_answered_with_nothing(
    client: Any, drawn: DrawnApplication, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    body = request_of("predict_interactive_keypointlabels", value={"x": 1, "y": 1, "keypointlabels": ["ghost"]})
    assert answered(client, body)["result"] == [] and "'ghost'" in caplog.text and drawn.proposer.calls == 0


@pytest.mark.parametrize(
    "entry",
    [
        None,
        5,
        {"type": "brushlabels", "value": {"brushlabels": ["disc"]}},
        {"type": "keypointlabels", "value": {"x": "a", "y": 1, "keypointlabels": ["disc"]}},
        {"type": "keypointlabels", "value": {"x": 1, "y": 1}},
        {"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": [5]}},
        {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "rectanglelabels": ["disc"]}},
        {"type": "keypointlabels", "value": []},
        {"type": "keypointlabels", "value": {"x": 1e300, "y": 1, "keypointlabels": ["disc"]}},
    ],
)
def test_other_things_are_passed_over(entry: Any) -> None:
    clicks, notes = read_clicks({"result": [entry]})
    assert clicks == [] and len(notes) == 1 and notes[0].endswith(".")
    assert read_clicks({"result": entry})[0] == []


def test_turned_rectangles() -> None:
    value = {"x": 50, "y": 25, "width": 25, "height": 20, "rotation": 90, "rectanglelabels": ["disc"]}
    size = {"original_width": 200, "original_height": 100}
    (clicks,), _ = read_clicks({"result": [{"type": "rectanglelabels", "to_name": "image", "value": value, **size}]})
    corners = np.array(clicks.boxes[0].corners) * (200, 100)
    assert np.allclose(corners, [(100, 25), (100, 75), (80, 75), (80, 25)])


def test_clicks_are_grouped_by_picture_and_label() -> None:
    def point(label: str, to_name: str = "image", **more: Any) -> dict[str, Any]:
        return {"type": "keypoint", "to_name": to_name, "value": {"x": 1, "y": 2, "labels": [label]}, **more}

    clicks, notes = read_clicks(
        {"result": [point("a"), point("b"), point("a", is_positive=False), point("a", item_index=1)]}
    )
    assert notes == [] and [(c.label, c.item, len(c.points)) for c in clicks] == [
        ("a", None, 2),
        ("b", None, 1),
        ("a", 1, 1),
    ]
    assert [p.positive for p in clicks[0].points] == [True, False]


def test_a_click_runs_no_diffusion_model(tmp_path: Path) -> None:
    """It is answered from the capture that the prediction of the task left."""
    settings = Settings(data_dir=tmp_path, label_studio_url="http://studio", _env_file=None)  # type: ignore[call-arg]
    it = ServedApplication(settings, tasks=1)
    try:
        picture = scene((COLOURS["red"], (8, 8, 32, 32)), (COLOURS["blue"], (8, 56, 32, 32)))
        data = "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()
        it.studio.tasks[1]["data"]["image"] = data
        config = CONFIG.replace('"disc"', '"red"').replace('"bar"', '"blue"').replace(
            "</View>", '<KeyPointLabels name="kp" toName="image" smart="true"><Label value="red"/></KeyPointLabels></View>'
        )  # fmt: skip
        (predicted,) = it.predict(label_config=config)
        assert it.model.reader.unet_passes == 1 and predicted["result"]
        value = {"x": 25.0, "y": 37.5, "width": 0.2, "keypointlabels": ["red"], "labels": ["red"]}
        click = {"id": "k", "from_name": "kp", "to_name": "image", "type": "keypointlabels", "is_positive": True}
        params = {"context": {"result": [click | {"value": value, "original_width": 96, "original_height": 64}]}}
        (answer,) = it.predict(label_config=config, params=params)
        assert it.model.reader.unet_passes == 1
        mask, truth = decode_mask(answer["result"][0]["value"]["rle"], 64, 96), box(8, 8, 32, 32)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    finally:
        it.application.close()
