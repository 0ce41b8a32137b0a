"""The adapter under the base class of label-studio-ml's repository (2.x), with a model small enough to learn in no time.

PyPI's 1.0.9 hosts it in ``tests/integration/test_label_studio_ml_real.py``.
"""

from __future__ import annotations

import base64
import inspect
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from protocol_helpers import HERE, annotation_event, brush, captured, predict_body

from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.image_source import encode_png
from ovam_labeler.settings import Settings
from ovam_labeler.tools import label_studio
from ovam_labeler.tools.label_studio import ml_process
from ovam_labeler.tools.label_studio.rle import decode_mask
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from token_store.entities import Scope

sys.path.append(str(HERE.parent / "application"))

from colour_model import COLOURS, ColourModel, box, scene

SCOPE = Scope("default", "2")
CONFIG = """<View><Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="red"/><Label value="thing"/></BrushLabels></View>"""
ADAPTER = "ovam_labeler.tools.label_studio.ml_adapter"
HOSTING = "ovam_labeler.tools.label_studio.ml_hosting"


def forget() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "label_studio_ml" or n in (ADAPTER, HOSTING)]:
        del sys.modules[name]
        if name in (ADAPTER, HOSTING):
            delattr(label_studio, name.rpartition(".")[2])


@pytest.fixture
def application(tmp_path: Path, sqlite_template: Path) -> Iterator[OvamApplication]:
    (tmp_path / "state").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "state" / "ovam.sqlite3")
    settings = Settings(data_dir=tmp_path / "state", push_delay=600, _env_file=None)  # type: ignore[call-arg]
    app = build_application(settings, {"label_studio": LabelStudioTool(settings)}, loader=ColourModel().load)
    yield app
    app.close()


@pytest.fixture
def hosted(application: OvamApplication, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The test client of label-studio-ml's server, with the adapter as its model."""
    monkeypatch.syspath_prepend(str(HERE / "ml_2x"))
    forget()
    import label_studio_ml.api as api

    from ovam_labeler.tools.label_studio.ml_adapter import OvamModel

    ml_process.use(application)
    yield api.init_app(model_class=OvamModel).test_client()
    ml_process.close()
    forget()


def data_uri(colour: tuple[int, int, int], top: int = 16) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(scene((colour, (top, 16, 24, 32))))).decode()


def body(colour: tuple[int, int, int] = COLOURS["red"], **changes: Any) -> dict[str, Any]:
    task = {"id": 1, "data": {"image": data_uri(colour)}, "project": 2}
    return predict_body([task], label_config=CONFIG, **changes)


def setup(hosted: Any, **changes: Any) -> Any:
    return hosted.post("/setup", json=captured("setup") | {"project": "2.1", "schema": CONFIG} | changes)


def event(**changes: Any) -> dict[str, Any]:
    """An annotator drew a green box, and called it ``thing``."""
    made = annotation_event([brush("thing", box(16, 16, 24, 32))], **changes)
    made["project"] |= {"id": 2, "label_config": CONFIG}
    made["task"]["data"]["image"] = data_uri((30, 200, 30))
    return made


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_setup_and_predict_say_the_same_version_and_masks_fit(hosted: Any) -> None:
    version = setup(hosted).json["model_version"]
    assert version.startswith("ovam-")
    (made,) = hosted.post("/predict", json=body()).json["results"]
    assert made["model_version"] == version
    (region,) = [r for r in made["result"] if r["value"]["brushlabels"] == ["red"]]
    mask = decode_mask(region["value"]["rle"], 64, 96)
    truth = box(16, 16, 24, 32)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def test_a_click_of_a_smart_tool_picks_an_object(hosted: Any) -> None:
    smart = '<KeyPointLabels name="kp" toName="image" smart="true"><Label value="red" smart="true"/></KeyPointLabels></View>'
    clicked = {
        "id": "k", "type": "keypointlabels", "from_name": "kp", "to_name": "image", "is_positive": True,
        "original_width": 96, "original_height": 64,
        "value": {"x": 33.0, "y": 44.0, "width": 0.25, "keypointlabels": ["red"]},
    }  # fmt: skip
    asked = body() | {"label_config": CONFIG.replace("</View>", smart), "params": {"context": {"result": [clicked]}}}
    (made,) = hosted.post("/predict", json=asked).json["results"]
    assert [r["value"]["brushlabels"] for r in made["result"]] == [["red"]]


def test_a_task_that_cannot_be_read_is_passed_over_and_the_others_are_kept(hosted: Any) -> None:
    asked = body()
    asked["tasks"] = [{"id": 9, "data": {}}, *asked["tasks"]]
    passed, made = hosted.post("/predict", json=asked).json["results"]
    assert passed == [] and made["result"]


def test_fit_stores_before_it_returns_and_the_worker_learns(hosted: Any, application: OvamApplication) -> None:
    before = setup(hosted).json["model_version"]
    answer = hosted.post("/webhook", json=event())
    assert answer.status_code == 201 and answer.json["result"]["status"] == "stored"
    (correction,) = application.store.list_corrections(SCOPE)
    assert correction.id == answer.json["result"]["correction"] and correction.labels == ("thing",)
    wait(lambda: application.store.get_correction(correction.id).state == "learned")
    after = setup(hosted).json["model_version"]
    assert after != before
    (made,) = hosted.post("/predict", json=body((30, 200, 30))).json["results"]
    assert made["model_version"] == after
    assert ["thing"] in [r["value"]["brushlabels"] for r in made["result"]]

    # What 2.x calls an unknown event.
    deleted = captured("webhook_ANNOTATIONS_DELETED")
    deleted["annotations"] = [{"id": int(correction.annotation_id)}]
    deleted["project"] |= {"id": 2, "label_config": CONFIG}
    assert hosted.post("/webhook", json=deleted).json["result"]["corrections"] == [correction.id]
    wait(lambda: setup(hosted).json["model_version"] == before)


def test_every_event_is_taken_and_none_runs_a_model(hosted: Any, application: OvamApplication) -> None:
    for name in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "TASKS_DELETED", "PROJECT_UPDATED", "START_TRAINING"):
        answer = hosted.post("/webhook", json=captured(f"webhook_{name}"))
        assert answer.status_code == 201 and answer.json["status"] == "ok", name
    assert len(application.store.list_corrections(Scope("default", "2"))) >= 1


def test_extra_parameters_become_options_and_another_version(hosted: Any, application: OvamApplication) -> None:
    plain = setup(hosted, extra_params=None).json["model_version"]
    for given in ({"presence": False}, '{"presence": false}'):  # an object fails in 2.x's own method
        assert setup(hosted, extra_params=given).json["model_version"] != plain
    assert application.store.get_project_options(SCOPE) == {"extra_params": {"presence": False}}


def test_a_bad_config_is_one_sentence_without_a_traceback(hosted: Any) -> None:
    answer = setup(hosted, schema='<View><Text name="t" value="$t"/></View>')
    assert answer.status_code == 422 and answer.json["error"]["code"] == "bad_config"
    assert "Traceback" not in answer.text and "no image tag" in answer.status


def test_the_webhook_is_open_to_this_machine_only(hosted: Any, application: OvamApplication) -> None:
    answer = hosted.post("/webhook", json=event(), environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert answer.status_code == 401 and application.store.list_corrections(SCOPE) == []
    assert hosted.post("/webhook", json=event()).status_code == 201


def test_methods_take_the_calls_of_both_base_classes(hosted: Any, application: OvamApplication) -> None:
    """1.0.9: ``fit((), event=, data=, job_id=, workdir=)``; 2.x: ``fit(event, data)`` or both by name."""
    from ovam_labeler.tools.label_studio.ml_adapter import OvamModel

    model = OvamModel("2", CONFIG)
    for number, call in enumerate(
        (
            lambda action, data: model.fit((), event=action, data=data, job_id="1", workdir="/nowhere"),
            lambda action, data: model.fit(action, data),
            lambda action, data: model.fit(event=action, data=data, job_id="1"),
            lambda action, data: model.process_event(action, data, "1", {}),
        )
    ):
        made = event(id=100 + number)
        assert call(made.pop("action"), made)["status"] == "stored"
    names = {c.annotation_id for c in application.store.list_corrections(SCOPE)}
    assert names == {"100", "101", "102", "103"}
    assert list(inspect.signature(OvamModel.predict).parameters)[:3] == ["self", "tasks", "context"]
    assert np.isfinite(model.predict(body()["tasks"])[0]["score"])
