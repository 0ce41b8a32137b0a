"""Which labels an annotation teaches, and what their targets are."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image
from protocol_helpers import annotation_event, brush, captured, half

from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import BadRequestError
from ovam_labeler.tools.label_studio.corrections import Reading, read_event, truths_of
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

SCOPE = Scope("default", "2")


def served(**regions: str) -> ServedPrediction:
    return ServedPrediction(SCOPE, "1", "v1", regions, {}, datetime.now(UTC))


def read(result: list[dict[str, Any]], given: ServedPrediction | None = None, **annotation: Any) -> Reading:
    return read_event(annotation_event(result, **annotation), SCOPE, given)


def taught(result: list[dict[str, Any]], given: ServedPrediction | None = None, **annotation: Any) -> tuple[str, ...]:
    correction = read(result, given, **annotation).correction
    return () if correction is None else correction.labels


def stored(new: NewCorrection | None) -> Correction:
    assert new is not None
    payload = json.loads(json.dumps(new.payload))
    return Correction(
        1, new.scope, new.annotation_id, new.updated_at, new.task_id, new.image_ref, None, payload, new.labels,
        new.annotator, "pending", "", datetime.now(UTC),
    )  # fmt: skip


def image(height: int = 24, width: int = 32) -> LoadedImage:
    return LoadedImage(np.zeros((height, width, 3), np.uint8), "0" * 64)


def test_drawn_and_edited_teach_untouched_do_not() -> None:
    regions = [brush("disc", half(), "a", "manual"), brush("bar", half(), "b", "prediction")]
    assert taught(regions) == ("disc",)
    regions = [brush("disc", half(), "a", "prediction"), brush("bar", half(), "b", "prediction-changed")]
    assert taught(regions, served(a="disc", b="bar"), parent_prediction=3) == ("bar",)


def test_wholly_untouched_predictions_and_skips_teach_nothing() -> None:
    regions = [brush("disc", half(), "a", "prediction")]
    reading = read(regions, served(a="disc"), parent_prediction=3)
    assert reading.correction is None and reading.reason == "No region was drawn, edited or deleted."
    assert read([], served(a="disc"), was_cancelled=True, parent_prediction=3).reason == "The task was skipped."


def test_deleted_regions_teach() -> None:
    left = [brush("disc", half(), "a", "prediction")]
    assert taught(left, served(a="disc", b="bar"), parent_prediction=3) == ("bar",)
    assert taught([], served(a="disc", b="bar"), parent_prediction=3) == ("disc", "bar")


def test_one_of_two_regions_deleted_teaches_the_label_with_what_is_left() -> None:
    correction = read(
        [brush("disc", half(), "a", "prediction")], served(a="disc", b="disc"), parent_prediction=3
    ).correction
    truths, _ = truths_of(stored(correction), image())
    assert [(t.label, t.kind) for t in truths] == [("disc", "positive")] and np.array_equal(truths[0].mask, half())


def test_a_relabelled_region_teaches_both_labels() -> None:
    assert taught([brush("bar", half(), "a", "prediction-changed")], served(a="disc"), parent_prediction=3) == (
        "disc",
        "bar",
    )


def test_missing_regions_of_a_prediction_the_annotator_never_saw_say_nothing() -> None:
    seen = [brush("disc", half(), "old", "prediction-changed")]
    assert taught(seen, served(new="disc", other="bar"), parent_prediction=3) == ("disc",)
    assert taught([brush("disc", half(), "x")], served(b="bar"), parent_prediction=None) == ("disc",)


def test_the_target_is_the_union_whatever_the_origin_with_an_ignored_ring() -> None:
    big_half, corner = half(240, 320), np.zeros((240, 320), dtype=bool)
    corner[:40, 280:] = True
    regions = [brush("disc", big_half, "a", "prediction"), brush("disc", corner, "b", "manual")]
    truths, notes = truths_of(stored(read(regions).correction), image(240, 320))
    assert notes == [] and np.array_equal(truths[0].mask, big_half | corner)
    assert truths[0].ignore[100, 158:162].all() and not truths[0].ignore[100, :100].any()


def test_emptied_and_erased_labels_are_negatives() -> None:
    emptied = stored(read([], served(a="disc"), parent_prediction=3).correction)
    truths, _ = truths_of(emptied, image())
    assert [(t.label, t.kind, t.mask.any()) for t in truths] == [("disc", "negative", False)]
    erased = stored(read([brush("disc", half() & False, "a", "prediction-changed")]).correction)
    assert truths_of(erased, image())[0][0].kind == "negative"


def test_unknown_labels_and_other_regions_are_skipped_with_a_sentence() -> None:
    regions = [
        brush("disc", half(), "a"),
        brush("ghost", half(), "b"),
        {"id": "c", "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["bar"]}, "origin": "manual"},
        brush("bar", half(), "d") | {"value": {"format": "rle", "rle": [1]}},
        "no region",
    ]
    reading = read(regions)  # type: ignore[arg-type]
    assert reading.correction is not None and reading.correction.labels == ("disc",)
    for word in ("'ghost'", "rectanglelabels", "'d' has no label", "no regions"):
        assert any(word in note for note in reading.notes), word
    assert read([brush("ghost", half(), "b")]).correction is None


def test_a_mask_of_another_size_is_skipped_and_its_label_teaches_nothing() -> None:
    regions = [brush("disc", half(10, 10), "a"), brush("bar", half(), "b")]
    truths, notes = truths_of(stored(read(regions).correction), image())
    assert [t.label for t in truths] == ["bar"] and "10x10" in notes[0] and "32x24" in notes[0]


@pytest.mark.parametrize("rle", [[255, 255, 255, 255, 57, 27], [0, 0, 12], "zzz", None, [300] * 20, []])
def test_broken_rle_is_skipped_and_is_no_negative(rle: Any) -> None:
    region = brush("disc", half(), "a")
    region["value"]["rle"] = rle
    truths, notes = truths_of(stored(read([region]).correction), image())
    assert truths == [] and len(notes) == 1


def test_a_mask_of_everything_teaches_nothing_and_five_pixels_do() -> None:
    truths, notes = truths_of(stored(read([brush("disc", half() | True)]).correction), image())
    assert truths == [] and "whole picture" in notes[0]
    five = np.zeros((24, 32), dtype=bool)
    five[10, 4:9] = True
    truths, _ = truths_of(stored(read([brush("disc", five)]).correction), image())
    assert truths[0].mask.sum() == 5 and not (truths[0].ignore & five).any()


def test_pairs_of_brush_and_labels_are_read_once() -> None:
    stroke = brush("disc", half(), "a")
    value = {"format": "rle", "rle": stroke["value"]["rle"]}
    pair = [
        stroke | {"type": "magicwand", "value": value},
        stroke | {"type": "labels", "value": value | {"labels": ["disc"]}},
    ]
    reading = read(pair)
    assert reading.notes == () and reading.correction is not None and reading.correction.labels == ("disc",)
    assert np.array_equal(truths_of(stored(reading.correction), image())[0][0].mask, half())


def test_bitmasks_and_polygons_are_read() -> None:
    rgba = np.zeros((24, 32, 4), np.uint8)
    rgba[..., 3][half()] = 255
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    base = brush("disc", half(), "a")
    bitmask = base | {"type": "bitmasklabels", "value": {"imageDataURL": url, "bitmasklabels": ["disc"]}}
    assert np.array_equal(truths_of(stored(read([bitmask]).correction), image())[0][0].mask, half())
    square = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "closed": True, "polygonlabels": ["disc"]}
    polygon = truths_of(stored(read([base | {"type": "polygonlabels", "value": square}]).correction), image())[0][
        0
    ].mask
    assert (polygon & half()).sum() / (polygon | half()).sum() > 0.9
    for broken in (
        {"imageDataURL": "data:image/png;base64,!!!"},
        {"points": [[0, 0], [1, "x"], [2, 2]]},
        {"points": [[0, 0]]},
    ):
        kind = "bitmasklabels" if "imageDataURL" in broken else "polygonlabels"
        region = base | {"type": kind, "value": {**broken, kind: ["disc"]}}
        assert truths_of(stored(read([region]).correction), image())[0] == []


def test_an_annotation_that_is_not_exhaustive_leaves_the_rest_unknown() -> None:
    reading = read_event(annotation_event([brush("disc", half())]), SCOPE, None, exhaustive=False)
    truth = truths_of(stored(reading.correction), image())[0][0]
    assert truth.ignore[:, 20:].all() and not truth.ignore[:, :10].any()


def test_nothing_secret_is_stored() -> None:
    event = annotation_event([brush("disc", half())])
    event["task"]["data"] |= {"image": "https://user:hunter2@example.com/a.png?v=1", "password": "hunter3"}
    event["project"]["task_data_password"] = "hunter4"
    correction = read_event(event, SCOPE, None).correction
    assert correction is not None and correction.image_ref == "https://example.com/a.png?v=1"
    text = json.dumps(correction.payload) + correction.image_ref
    assert "hunter" not in text and "project-token-must-not-be-stored" not in text


def test_a_captured_edit_from_the_browser() -> None:
    event = captured("webhook_ANNOTATION_CREATED_from_ui_prediction_changed")
    given = ServedPrediction(Scope("default", "18"), "50", "base", {"r0": "disc", "r1": "bar"}, {}, datetime.now(UTC))
    correction = read_event(event, given.scope, given).correction
    assert correction is not None and correction.labels == ("disc",)
    assert (correction.annotation_id, correction.task_id, correction.annotator) == ("29", "50", "1")
    assert correction.updated_at == "2026-11-22T21:10:34.244533Z"
    assert correction.image_ref == "/data/upload/18/7a777f17-scene_1.png"
    shortened = truths_of(stored(correction), image(240, 320))
    assert shortened[0] == [] and "whole numbers" in shortened[1][0]


@pytest.mark.parametrize("gone", ["annotation", "task", "project"])
def test_bodies_without_their_parts_are_refused(gone: str) -> None:
    event = annotation_event([brush("disc", half())])
    for value in (None, [], "x"):
        with pytest.raises(BadRequestError, match=gone):
            read_event({**event, gone: value}, SCOPE, None)


@pytest.mark.parametrize("data", [{}, {"image": None}, {"image": 5}, {"image": "  "}, {"image": "http://[bad"}])
def test_tasks_without_an_image_are_refused(data: dict[str, Any]) -> None:
    event = annotation_event([brush("disc", half())])
    event["task"]["data"] = data
    with pytest.raises(BadRequestError, match="'image'"):
        read_event(event, SCOPE, None)


def test_results_that_are_no_list_teach_nothing() -> None:
    assert read("text").correction is None  # type: ignore[arg-type]
    assert truths_of(replace(stored(read([brush("disc", half())]).correction), payload={}), image())[0] == []
