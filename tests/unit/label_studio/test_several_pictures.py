"""Tasks that show several pictures: in tags of their own, or as a list of one tag."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from protocol_helpers import DrawnApplication, annotation_event, brush, data_uri, half, predict_body

from ovam_labeler.errors import BadRequestError
from ovam_labeler.tools.label_studio.corrections import read_event, truths_of
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.predictions import picture_mark
from ovam_labeler.tools.label_studio.rle import decode_mask
from ovam_labeler.tools.label_studio.task_images import task_images
from token_store.entities import Correction, Scope

TAGS = """<View><Image name="left" value="$a"/><Image name="right" value="$b"/>
  <BrushLabels name="tag" toName="left"><Label value="disc"/></BrushLabels>
  <BrushLabels name="other" toName="right"><Label value="disc"/><Label value="bar"/></BrushLabels></View>"""
PAGES = """<View><Image name="pages" valueList="$pages"/>
  <BrushLabels name="tag" toName="pages"><Label value="disc"/></BrushLabels></View>"""
SIZES = {"left": (24, 32), "right": (40, 20)}
SCOPE = Scope("default", "2")
LATER = "2026-11-25T00:00:00Z"


def data(config: str = TAGS) -> dict[str, Any]:
    urls = [data_uri(*size, shade=k) for k, size in enumerate(SIZES.values())]
    return {"a": urls[0], "b": urls[1]} if config == TAGS else {"pages": urls}


def predicted(client: Any, config: str) -> dict[str, Any]:
    body = predict_body([{"id": 1, "data": data(config)}], label_config=config)
    return dict(client.post("/predict", json=body).json["results"][0])


def test_each_picture_gets_its_own_labels_at_its_own_size(client: Any) -> None:
    made = predicted(client, TAGS)
    found = [(r["to_name"], r["from_name"], r["value"]["brushlabels"][0]) for r in made["result"]]
    assert found == [("left", "tag", "disc"), ("right", "other", "disc"), ("right", "other", "bar")]
    for region in made["result"]:
        height, width = SIZES[region["to_name"]]
        assert (region["original_height"], region["original_width"]) == (height, width)
        assert decode_mask(region["value"]["rle"], height, width).any()
        assert "item_index" not in region
    assert len({r["id"] for r in made["result"]}) == 3


def test_pictures_of_a_list_are_told_apart_by_their_place(client: Any) -> None:
    made = predicted(client, PAGES)
    assert [(r["to_name"], r["item_index"], r["original_height"]) for r in made["result"]] == [
        ("pages", 0, 24),
        ("pages", 1, 40),
    ]


def event(
    result: list[dict[str, Any]], config: str = TAGS, action: str = "ANNOTATION_CREATED", **more: Any
) -> dict[str, Any]:
    made = annotation_event(result, action, **more)
    made["task"]["data"] = data(config)
    made["project"]["label_config"] = config
    return made


def drawn(to_name: str, label: str = "disc", **changes: Any) -> dict[str, Any]:
    return brush(label, half(*SIZES[to_name]), f"r-{to_name}-{label}", to_name=to_name, **changes)


def truths(correction: Any, size: tuple[int, int]) -> dict[str, np.ndarray]:
    from datetime import UTC, datetime

    from ovam_labeler.domain import LoadedImage

    stored = Correction(
        1, correction.scope, correction.annotation_id, correction.updated_at, correction.task_id, correction.image_ref,
        None, correction.payload, correction.labels, correction.annotator, "pending", "", datetime.now(UTC),
    )  # fmt: skip
    found, notes = truths_of(stored, LoadedImage(np.zeros((*size, 3), np.uint8), "0" * 64))
    assert notes == []
    return {t.label: t.mask for t in found}


def test_each_picture_teaches_what_was_drawn_on_it() -> None:
    reading = read_event(event([drawn("left"), drawn("right"), drawn("right", "bar")]), SCOPE, None)
    left, right = reading.corrections
    assert (left.labels, right.labels) == (("disc",), ("disc", "bar"))
    assert right.annotation_id == f"{left.annotation_id}@right" and left.image_ref != right.image_ref
    assert np.array_equal(truths(left, SIZES["left"])["disc"], half(*SIZES["left"]))
    assert np.array_equal(truths(right, SIZES["right"])["bar"], half(*SIZES["right"]))


def test_lists_of_pictures_teach_by_place() -> None:
    first = brush("disc", half(24, 32), "a", to_name="pages")
    second = brush("disc", half(40, 20), "b", to_name="pages", item_index=1)
    corrections = read_event(event([first, second], PAGES), SCOPE, None).corrections
    assert [c.annotation_id.partition("@")[2] for c in corrections] == ["", "pages#1"]
    assert truths(corrections[1], (40, 20))["disc"].shape == (40, 20)


def test_a_region_deleted_on_one_picture_says_nothing_of_the_other(client: Any, application: DrawnApplication) -> None:
    made = predicted(client, TAGS)
    kept = [r | {"origin": "prediction"} for r in made["result"] if r["to_name"] == "left"]
    kept += [r | {"origin": "prediction"} for r in made["result"] if r["value"]["brushlabels"] == ["bar"]]
    answer = client.post("/webhook", json=event(kept, parent_prediction=5)).json
    assert answer["labels"] == ["disc"] and "corrections" not in answer
    (correction,) = [c for c in application.store.list_corrections(SCOPE) if c.labels]
    assert correction.annotation_id.endswith("@right") and correction.labels == ("disc",)
    assert made["result"][1]["id"].endswith(picture_mark("@right"))


def states(application: DrawnApplication) -> dict[str, str]:
    found = application.store.list_corrections(SCOPE)
    return {c.annotation_id.partition("@")[2]: c.state for c in found if c.labels}


def test_updates_and_deletions_reach_every_picture(client: Any, application: DrawnApplication) -> None:
    made = client.post("/webhook", json=event([drawn("left"), drawn("right")])).json
    assert len(made["corrections"]) == 2 and application.notified == 1
    assert client.post("/webhook", json=event([drawn("left"), drawn("right")])).json["status"] == "ignored"
    changed = event([drawn("left")], action="ANNOTATION_UPDATED", updated_at="2027-01-01T00:00:00Z")
    client.post("/webhook", json=changed)
    assert states(application)["right"] == "retracted"
    client.post("/webhook", json=event([drawn("left"), drawn("right")], updated_at="2027-01-02T00:00:00Z"))
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": changed["annotation"]["id"]}]}
    client.post("/webhook", json=gone | {"project": changed["project"]})
    assert set(states(application).values()) == {"retracted"}


def test_a_skip_takes_back_every_picture(client: Any, application: DrawnApplication) -> None:
    client.post("/webhook", json=event([drawn("left"), drawn("right")]))
    client.post("/webhook", json=event([], action="ANNOTATION_UPDATED", was_cancelled=True, updated_at=LATER))
    assert set(states(application).values()) == {"retracted"}


def test_missing_and_too_many_pictures() -> None:
    config = parse_label_config(TAGS)
    assert [p.name for p in task_images({"a": "x.png"}, config)] == ["left"]
    for broken in ({"b": "x.png"}, {}, {"a": 5}, {"a": "x", "b": ["y"]}):
        with pytest.raises(BadRequestError):
            task_images(broken, config)
    pages = parse_label_config(PAGES)
    assert [(p.item, p.first, p.suffix) for p in task_images({"pages": ["x", "y"]}, pages)] == [
        (0, True, ""),
        (1, False, "@pages#1"),
    ]
    for broken in ({"pages": []}, {"pages": ["x"] * 33}, {"pages": "x", "more": 1} | {"pages": None}, {"pages": [1]}):
        with pytest.raises(BadRequestError):
            task_images(broken, pages)
