"""The whole loop as an annotator plays it in a real Label Studio, whatever server answers as its backend."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.project import label_config, masks_of
from ovam_labeler.demo.scenes import Plan, Scene, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.rle import encode_mask


def loop_scenes() -> SceneSet:
    """Three things the model was never trained on, offered under labels that are no words: only corrections can help."""
    return make_scenes(load_pack("val"), 1, compose, Plan(novel=3, known=0, corrections=1, tests=3))


class Loop:
    """A project of scenes, connected to a backend."""

    def __init__(self, client: LabelStudioClient, scenes: SceneSet, title: str, backend_url: str, secret: str) -> None:
        self.client, self.scenes = client, scenes.scenes
        self.labels = sorted({label(scene) for scene in self.scenes})
        self.project = int(client.create_project(title, label_config(self.labels))["id"])
        self.ids = client.import_files(self.project, {f"{scene.name}.png": png(scene.image) for scene in self.scenes})
        self._tasks = dict(zip([scene.name for scene in self.scenes], self.ids, strict=True))
        backend = client.add_backend(self.project, backend_url)
        assert backend["state"] == "CO" and backend["model_version"].startswith("ovam-embedded-")
        self.backend, self.version = int(backend["id"]), str(backend["model_version"])
        assert client.secure_webhooks(self.project, backend_url, secret) == 1

    def retrieve(self) -> dict[int, dict[str, Any]]:
        """Have predictions retrieved; task id -> its newest stored one."""
        self.client.retrieve_predictions(self.project, self.ids)
        stored = {}
        for task in self.client.tasks(self.project):
            if task["predictions"]:
                stored[int(task["id"])] = max(task["predictions"], key=lambda row: int(row["id"]))
        return stored

    def check(self, predictions: dict[int, dict[str, Any]], version: str) -> None:
        assert set(predictions) == set(self.ids), "Label Studio stored no prediction for some tasks"
        assert {p["model_version"] for p in predictions.values()} == {version}
        assert all(0 <= p["score"] <= 1 for p in predictions.values())

    def correct(self, predictions: dict[int, dict[str, Any]]) -> list[int]:
        """Redraw each concept's mask exactly on its one scene that is for it; the annotations' ids."""
        made = []
        for scene in self.scenes:
            if scene.role == "correction":
                task = self._tasks[scene.name]
                given = predictions[task]
                result = corrected(given, scene)
                annotation = self.client.submit_annotation(task, result, parent_prediction=given["id"], lead_time=3.0)
                made.append(int(annotation["id"]))
        return made

    def mean(self, predictions: dict[int, dict[str, Any]]) -> float:
        """Mean IoU of the test scenes."""
        return float(np.mean([iou(predictions[self._tasks[s.name]], s) for s in self.scenes if s.role == "test"]))

    def copies(self) -> dict[int, int]:
        """How many predictions each task has."""
        return {task: len(self.client.predictions(task)) for task in self.ids}


def label(scene: Scene) -> str:
    """The concept's label in the project."""
    return f"défaut_{scene.concept.encode().hex()[:6]}"


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def corrected(prediction: dict[str, Any], scene: Scene) -> list[dict[str, Any]]:
    """The prediction's regions as the editor submits them after the concept's mask was redrawn exactly."""
    height, width = scene.truth.shape
    value = {"format": "rle", "rle": encode_mask(scene.truth), "brushlabels": [label(scene)]}
    result = [region | {"origin": "prediction"} for region in prediction["result"]]
    mine = [region for region in result if region["value"]["brushlabels"] == [label(scene)]]
    if mine:
        mine[0] |= {"origin": "prediction-changed", "value": value}
        return result
    drawn = {"id": "drawn", "type": "brushlabels", "from_name": "tag", "to_name": "image", "origin": "manual"}
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return [*result, drawn | size | {"value": value}]


def iou(prediction: dict[str, Any], scene: Scene) -> float:
    mask = masks_of(prediction).get(label(scene))
    return 0.0 if mask is None else float((mask & scene.truth).sum() / (mask | scene.truth).sum())


def drawn(label_name: str, name: str = "drawn") -> dict[str, Any]:
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:30, 10:40] = True
    value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": [label_name]}
    size = {"original_width": 60, "original_height": 40, "image_rotation": 0}
    kind = {"type": "brushlabels", "from_name": "tag", "to_name": "image", "origin": "manual"}
    return {"id": name, "value": value} | kind | size
