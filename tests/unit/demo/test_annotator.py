"""What the played annotator submits is what the backend reads as one corrected mask."""

from __future__ import annotations

import numpy as np
import pytest

from ovam_labeler.demo.annotator import corrected_result
from ovam_labeler.demo.project import label_config, masks_of
from ovam_labeler.domain import Proposal
from ovam_labeler.tools.label_studio.corrections import read_event
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.predictions import write_prediction
from ovam_labeler.tools.label_studio.regions import read_regions, region_mask
from token_store.entities import Scope

LABELS = ["zebra", 'cup & "saucer" <old>', "jalapeño"]


def proposal(label: str, mask: np.ndarray) -> Proposal:
    return Proposal(label, mask, mask.astype(np.float32), 0.5, bool(mask.any()), 0.9, "word")


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    made = {}
    for i, label in enumerate(LABELS):
        made[label] = np.zeros((24, 32), bool)
        made[label][2 + i : 9 + i, 3 * i : 3 * i + 8] = True
    return made


def prediction(masks: dict[str, np.ndarray], labels: list[str]) -> dict:
    written = write_prediction(
        [proposal(n, masks[n]) for n in labels],
        parse_label_config(label_config(LABELS)),
        (24, 32),
        "ovam-test",
        task_id="7",
    )
    return {"id": 11, **written}


def event(result: list[dict]) -> dict:
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": {"id": 1, "result": result, "parent_prediction": 11, "updated_at": "2026-01-01T00:00:00Z"},
        "task": {"id": 7, "data": {"image": "/data/local-files/?d=a.png"}},
        "project": {"id": 2, "label_config": label_config(LABELS)},
    }


def test_config_keeps_labels_verbatim():
    assert [label.name for label in parse_label_config(label_config(LABELS)).labels] == LABELS


def test_masks_survive_the_way_through_label_studio(masks):
    found = masks_of(prediction(masks, LABELS))
    assert set(found) == set(LABELS)
    assert all(np.array_equal(found[n], masks[n]) for n in LABELS)


@pytest.mark.parametrize("predicted", [LABELS, LABELS[1:], []])
def test_exactly_one_label_is_taught_and_with_the_exact_truth(masks, predicted):
    truth = np.zeros((24, 32), bool)
    truth[12:20, 10:30] = True
    before = prediction(masks, predicted)
    result = corrected_result(before, "zebra", truth)
    reading = read_event(event(result), Scope("default", "2"), None)
    assert reading.correction is not None
    assert reading.correction.labels == ("zebra",)
    regions, notes = read_regions(result)
    assert not notes
    zebra = [r for r in regions if r.label == "zebra"]
    assert len(zebra) == 1
    assert np.array_equal(region_mask(zebra[0], 24, 32), truth)
    assert zebra[0].origin == ("prediction-changed" if "zebra" in predicted else "manual")
    untouched = {r.id for r in regions if r.label != "zebra"}
    assert untouched == {r["id"] for r in before["result"] if r["value"]["brushlabels"] != ["zebra"]}
