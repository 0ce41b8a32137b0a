"""What every labeling tool must do, run over Label Studio, CVAT and a stranger's tool installed from outside the tree."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovam_labeler.domain import LoadedImage, Proposal
from ovam_labeler.errors import BadConfigError, BadImageError, FetchError, ModelError
from ovam_labeler.image_source import from_pillow
from ovam_labeler.tools import discovery
from ovam_labeler.tools.contract import LabelingTool
from ovam_labeler.tools.cvat import masks as cvat_masks
from ovam_labeler.tools.cvat.tool import CvatTool
from ovam_labeler.tools.label_studio.rle import encode_mask
from token_store.entities import Correction, NewCorrection, Scope

SIZE = (20, 30)
SCOPE = Scope("default", "1")
LABELS = ("disc", "tea pot")


@dataclass(frozen=True)
class Case:
    """A tool, and how its own protocol says the same things."""

    tool: LabelingTool
    config: str
    empty_config: str
    drawn: Callable[[np.ndarray], dict[str, Any]]  # an event: "disc" was drawn as this mask
    untaught: dict[str, Any]
    missing: str  # reference of a picture that is not there


@pytest.fixture
def installed_tools(installed: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    def add(project: str) -> None:
        installed(project)
        discovery.refresh()

    yield add
    for name in ("folder_tool", "broken_tools"):
        sys.modules.pop(name, None)
    discovery.refresh()


@pytest.fixture(autouse=True)
def forget_tools() -> Iterator[None]:
    discovery.refresh()
    yield
    discovery.refresh()


def label_studio_case(_: Path) -> Case:
    labels = "".join(f'<Label value="{label}"/>' for label in LABELS)
    head = '<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">'
    config = f"{head}{labels}</BrushLabels></View>"
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE[1], SIZE[0]), (90, 120, 30)).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    def event(result: list[dict[str, Any]], **annotation: Any) -> dict[str, Any]:
        return {
            "action": "ANNOTATION_CREATED",
            "annotation": {"id": 7, "updated_at": "2026-11-22T20:00:00Z", "result": result, **annotation},
            "task": {"id": 3, "data": {"image": url}},
            "project": {"id": 1, "label_config": config},
        }

    def drawn(mask: np.ndarray) -> dict[str, Any]:
        value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": ["disc"]}
        size = {"original_height": mask.shape[0], "original_width": mask.shape[1]}
        return event([{"id": "r", "type": "brushlabels", "origin": "manual", "value": value} | size])

    tool = discovery.tools()["label-studio"].get()
    return Case(
        tool, config, f"{head}</BrushLabels></View>", drawn, event([], was_cancelled=True), "/data/upload/1/a.png"
    )


def folder_case(folder: Path) -> Case:
    picture = folder / "picture.rgb"
    picture.write_bytes(bytes(SIZE[0] * SIZE[1] * 3))

    def drawn(mask: np.ndarray) -> dict[str, Any]:
        pixels = {"disc": np.flatnonzero(mask).tolist()}
        return {"id": 7, "saved": 1, "task": 3, "picture": str(picture), "size": list(mask.shape), "masks": pixels}

    nothing = {"id": 7, "saved": 1, "task": 3, "picture": str(picture), "size": list(SIZE), "masks": {}}
    tool = discovery.tools()["folder"].get()
    return Case(tool, "\n".join(LABELS), "\n", drawn, nothing, str(folder / "gone.rgb"))


def cvat_case(folder: Path) -> Case:
    tool = discovery.tools()["cvat"].get()
    assert isinstance(tool, CvatTool)
    picture = from_pillow(Image.new("RGB", (SIZE[1], SIZE[0]), (90, 120, 30)))
    tool.images.keep(picture)
    labels = [{"name": label, "type": "mask", "attributes": []} for label in LABELS]

    def event(shapes: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "7", "task": "3", "frame": 0, "name": "a.png", "picture": f"kept:{picture.sha256}",
            "size": list(SIZE), "saved": "1", "labels": labels, "shapes": shapes, "done": True,
        }  # fmt: skip

    def drawn(mask: np.ndarray) -> dict[str, Any]:
        return event(
            [{"id": 1, "type": "mask", "label": "disc", "points": cvat_masks.encode(mask), "source": "manual"}]
        )

    untaught = drawn(disc())
    untaught["shapes"][0]["source"] = "auto"
    return Case(tool, json.dumps(labels), "[]", drawn, untaught, "kept:" + "0" * 64)


@pytest.fixture(params=["label-studio", "cvat", "folder"])
def case(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    installed_tools: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    monkeypatch.setenv("OVAM_DATA_DIR", str(tmp_path / "state"))
    installed_tools("folder_tool")
    return {"label-studio": label_studio_case, "cvat": cvat_case, "folder": folder_case}[request.param](tmp_path)


def stored(new: NewCorrection | None) -> Correction:
    """As it comes back out of the store: the payload has been JSON."""
    assert new is not None
    payload: Mapping[str, Any] = json.loads(json.dumps(new.payload))
    return Correction(
        1, new.scope, new.annotation_id, new.updated_at, new.task_id, new.image_ref, None, payload, new.labels,
        new.annotator, "pending", "", datetime.now(UTC),
    )  # fmt: skip


def disc() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[4:15, 5:20] = True
    return mask


def proposal(label: str, mask: np.ndarray, present: bool = True) -> Proposal:
    return Proposal(label, mask, mask.astype(np.float32), 0.5, present, 1.0, "word")


def test_labels_are_read_verbatim_and_in_order(case: Case) -> None:
    assert tuple(label.name for label in case.tool.parse_config(case.config).labels) == LABELS


def test_a_config_without_labels_is_refused(case: Case) -> None:
    with pytest.raises(BadConfigError) as caught:
        case.tool.parse_config(case.empty_config)
    assert str(caught.value).endswith(".")


def test_written_proposals_are_json_and_absent_ones_are_left_out(case: Case) -> None:
    config = case.tool.parse_config(case.config)
    one = case.tool.write([proposal("disc", disc()), proposal("tea pot", disc() & False, False)], config, SIZE, "v-1")
    none = case.tool.write([proposal(label, disc() & False, False) for label in LABELS], config, SIZE, "v-1")
    text = json.dumps(one)
    assert "v-1" in text and "disc" in text and "tea pot" not in text and "disc" not in json.dumps(none)


def test_a_drawn_mask_comes_back_as_it_was(case: Case) -> None:
    correction = stored(case.tool.read_correction(case.drawn(disc()), SCOPE, None))
    assert correction.labels == ("disc",) and correction.scope == SCOPE and correction.annotation_id == "7"
    image, prompt = case.tool.image_of(correction)
    assert (image.height, image.width) == SIZE and image.pixels.dtype == np.uint8 and prompt == ""
    truths, notes = case.tool.truths_of(correction, image)
    assert notes == [] and [(t.label, t.kind) for t in truths] == [("disc", "positive")]
    assert np.array_equal(truths[0].mask, disc())
    assert truths[0].ignore.shape == SIZE and truths[0].ignore.dtype == bool


def test_what_teaches_nothing_is_none(case: Case) -> None:
    assert case.tool.read_correction(case.untaught, SCOPE, None) is None


def test_masks_of_another_size_are_sentences(case: Case) -> None:
    correction = stored(case.tool.read_correction(case.drawn(disc()), SCOPE, None))
    other = LoadedImage(np.zeros((9, 9, 3), np.uint8), "0" * 64)
    truths, notes = case.tool.truths_of(correction, other)
    assert truths == [] and notes and all(note.endswith(".") for note in notes)


def test_a_missing_picture_is_one_sentence(case: Case) -> None:
    event = json.loads(json.dumps(case.drawn(disc())))
    if "picture" in event:
        event["picture"] = case.missing
    else:
        event["task"]["data"]["image"] = case.missing
    correction = stored(case.tool.read_correction(event, SCOPE, None))
    with pytest.raises((FetchError, BadImageError)) as caught:
        case.tool.image_of(correction)
    assert str(caught.value).endswith(".")


def test_tools_satisfy_the_contract(case: Case) -> None:
    assert isinstance(case.tool, LabelingTool)


def test_broken_tools_are_listed_and_stop_nothing(installed_tools: Callable[[str], None]) -> None:
    installed_tools("broken_tool")
    found = discovery.tools()
    errors = {name: item.error for name, item in found.items()}
    assert errors["label-studio"] is None and found["label-studio"].distribution == "ovam-labeler"
    assert "no_such_name" in str(errors["raises"])
    assert "truths_of" in str(errors["half"])
    assert "version 0" in str(errors["old"])
    assert "is taken by" in str(errors["label-studio (broken-tool)"])
    with pytest.raises(ModelError, match="half"):
        found["half"].get()
