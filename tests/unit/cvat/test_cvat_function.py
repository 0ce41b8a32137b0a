"""The auto-annotation function under the SDK's own driver, which downloads frames, checks shapes and uploads them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import box
from cvat_cli._internal.agent_driver import set_worker_current_function
from cvat_cli._internal.agent_driver_detection import AgentDetectionFunctionDriver
from cvat_sdk import auto_annotation as aa
from cvat_sdk.core.client import Client
from cvat_server import SCOPE, CvatTask

from ovam_labeler.application import OvamApplication
from ovam_labeler.errors import BadConfigError, BadRequestError
from ovam_labeler.tools.cvat.corrections import shape_mask
from ovam_labeler.tools.cvat.function import OvamFunction, create, parameters_config

RED = box(16, 16, 24, 32)


def iou(shape: dict, truth: np.ndarray) -> float:
    mask = shape_mask({"type": shape["type"], "points": shape["points"]}, *truth.shape)
    return float((mask & truth).sum() / (mask | truth).sum())


def test_what_is_there_is_drawn_as_a_mask_and_nothing_else(annotate: Callable[..., None], task: CvatTask) -> None:
    annotate()
    (shape,) = task.shapes
    assert (shape["type"], shape["frame"], shape["source"]) == ("mask", 0, "auto")
    assert shape["label_id"] == task.label_id("red") and 0 <= shape["score"] <= 1
    assert iou(shape, RED) > 0.9


def test_masks_become_polygons_where_cvat_asks_for_them_or_the_user(
    annotate: Callable[..., None], task: CvatTask
) -> None:
    for how in ({"conv_mask_to_poly": True}, {"shapes": "polygon"}):
        annotate(clear_existing=True, **how)
        (shape,) = task.shapes
        assert shape["type"] == "polygon" and iou(shape, RED) > 0.9


def test_shapes_have_their_labels_types(
    annotate: Callable[..., None], application: OvamApplication, task: CvatTask, tmp_path: Path
) -> None:
    file = tmp_path / "labels.json"
    file.write_text('[{"name": "red", "type": "polygon"}, {"name": "green", "type": "mask"}]', encoding="utf-8")
    function = OvamFunction(application, parameters_config("", str(file)), SCOPE, "label")
    assert [(label.name, label.id, str(label.type)) for label in function.spec.labels] == [
        ("red", 0, "polygon"), ("green", 1, "mask"),
    ]  # fmt: skip
    with pytest.raises(aa.BadFunctionError, match="green"):  # the driver's own word
        annotate("red,green")
    annotate("red,green", allow_unmatched_labels=True)
    assert len(task.shapes) == 1


def test_shapes_reach_the_threshold_that_was_asked_for(annotate: Callable[..., None], task: CvatTask) -> None:
    annotate(conf_threshold=0.0)
    (shape,) = task.shapes
    for threshold, left in ((shape["score"], 1), (min(1.0, shape["score"] + 1e-6), 0), (1.0, 0)):
        annotate(conf_threshold=threshold, clear_existing=True)
        assert len(task.shapes) == left, threshold


def test_words_stand_for_a_label_until_it_is_learned(annotate: Callable[..., None], task: CvatTask) -> None:
    annotate("thing=green")
    assert [(s["frame"], s["label_id"]) for s in task.shapes] == [
        (1, task.label_id("thing")),
        (2, task.label_id("thing")),
    ]


class InOneProcess:
    """In the place of an agent's process: what goes in and out is copied as it would be between processes."""

    def submit(self, call: Callable[..., Any], *given: Any) -> Any:
        return pickle.loads(pickle.dumps(call(*pickle.loads(pickle.dumps(given)))))  # noqa: S301

    def result(self, made: Any) -> Any:
        return made


def test_an_agent_s_driver_takes_the_function(client: Client, application: OvamApplication, task: CvatTask) -> None:
    function = OvamFunction(application, parameters_config("red,thing"), SCOPE)
    set_worker_current_function(function)
    fields = AgentDetectionFunctionDriver.get_remote_function_fields(function.spec)
    assert [(row["name"], str(row["type"])) for row in fields["labels_v2"]] == [("red", "mask"), ("thing", "mask")]
    driver = AgentDetectionFunctionDriver(client, InOneProcess(), function.spec)
    asked = {
        "type": "annotate_task", "task": 1, "threshold": None, "conv_mask_to_poly": False,
        "mapping": {"red": {"name": "thing"}},
    }  # fmt: skip
    made = driver.calculate_result_for_ar(asked, lambda *, current_progress: None)["annotations"]
    (shape,) = made.shapes
    assert shape.label_id == task.label_id("thing") and shape.frame == 0 and iou(shape.to_dict(), RED) > 0.9


def test_what_was_proposed_is_remembered_by_the_frame_s_name(
    annotate: Callable[..., None], application: OvamApplication
) -> None:
    annotate()
    served = application.store.last_served(SCOPE, "a.png")
    assert served is not None and list(served.regions.values()) == ["red"] and served.model_version.startswith("ovam-")
    other = application.store.last_served(SCOPE, "b.png")
    assert other is not None and other.regions == {}


def test_parameters_that_say_nothing_are_refused(tmp_path: Path) -> None:
    for given in ({}, {"labels": "a", "labels_file": "b"}):
        with pytest.raises(BadRequestError, match="labels"):
            create(**given)
    with pytest.raises(BadConfigError):
        create(labels=" , ")
    with pytest.raises(BadConfigError, match="cannot be read"):
        create(labels_file=str(tmp_path / "none.json"))


def test_an_unknown_form_of_shapes_is_refused(application: OvamApplication) -> None:
    with pytest.raises(BadRequestError, match="mask, polygon, label"):
        OvamFunction(application, parameters_config("a"), SCOPE, "skeleton")
