from __future__ import annotations

import numpy as np
import pytest
from protocol_helpers import CONFIG

from ovam_labeler.domain import Proposal
from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.predictions import regions_of, write_prediction
from ovam_labeler.tools.label_studio.rle import decode_mask

PARSED = parse_label_config(CONFIG)


def proposal(label: str, mask: np.ndarray, score: float = 0.5, present: bool = True) -> Proposal:
    return Proposal(label, mask, mask.astype(np.float32), score, present, 1.0, "word")


def block(height: int = 30, width: int = 50) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[3:9, 5:40] = True
    return mask


def test_regions_have_what_label_studio_validates() -> None:
    made = write_prediction([proposal("disc", block(), 0.7), proposal("bar", ~block(), 0.4)], PARSED, (30, 50), "v1")
    assert made["model_version"] == "v1" and made["score"] == 0.4
    first, second = made["result"]
    assert {
        k: first[k] for k in ("from_name", "to_name", "type", "original_width", "original_height", "image_rotation")
    } == {
        "from_name": "tag",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": 50,
        "original_height": 30,
        "image_rotation": 0,
    }
    assert first["value"]["brushlabels"] == ["disc"] and first["value"]["format"] == "rle"
    assert all(isinstance(v, int) and 0 <= v <= 255 for v in first["value"]["rle"])
    assert np.array_equal(decode_mask(first["value"]["rle"], 30, 50), block())
    assert first["id"] != second["id"] and regions_of(made, PARSED) == {first["id"]: "disc", second["id"]: "bar"}


def test_absent_and_empty_proposals_give_no_region() -> None:
    empty = np.zeros((30, 50), dtype=bool)
    made = write_prediction(
        [proposal("disc", empty, 0.2), proposal("bar", block(), 0.9, present=False)], PARSED, (30, 50), "v1"
    )
    assert made["result"] == [] and made["score"] == 0.2


@pytest.mark.parametrize(("score", "written"), [(float("nan"), 0.0), (float("inf"), 0.0), (5.0, 1.0), (-1.0, 0.0)])
def test_scores_stay_in_bounds(score: float, written: float) -> None:
    made = write_prediction([proposal("disc", block(), score)], PARSED, (30, 50), "v1")
    assert made["score"] == written and made["result"][0]["score"] == written


def test_ids_tell_versions_tasks_and_masks_apart_and_repeat() -> None:
    def ident(version: str, task: str, mask: np.ndarray) -> str:
        made = write_prediction([proposal("disc", mask)], PARSED, (30, 50), version, task_id=task)
        return str(made["result"][0]["id"])

    ids = [ident("v1", "1", block()), ident("v2", "1", block()), ident("v1", "2", block()), ident("v1", "1", ~block())]
    assert len(set(ids)) == 4 and ids[0] == ident("v1", "1", block())


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(BadMaskError, match="image has"):
        write_prediction([proposal("disc", block(10, 50))], PARSED, (30, 50), "v1")
