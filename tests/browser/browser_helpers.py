"""What the browser tests share: the store behind the server, and how it gets its tokens."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from server_process import ServerProcess, wait_for

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.scenes import Plan, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.tools.label_studio.rle import encode_mask
from token_store import open_store
from token_store.contract import TokenStore
from token_store.entities import Scope

CAPTURE = Path(__file__).parents[1] / "unit" / "label_studio" / "captures" / "webhook_ANNOTATION_CREATED.json"
SCOPE = Scope("default", "2")


#: Corrections of each class; more for pictures of the pages, which are to show a history.
COUNTS = (1, 3, 2) if os.environ.get("OVAM_SCREENSHOTS") else (1, 2, 1)


@lru_cache(maxsize=1)
def scenes() -> SceneSet:
    """Two classes without a word in the model's training, and one with."""
    return make_scenes(load_pack("test"), 0, compose, Plan(novel=2, known=1, corrections=3, tests=0))


def names() -> list[str]:
    return [concept.name for concept in scenes().concepts]


class Site:
    """A running server, its address, and its store as seen by another process."""

    def __init__(self, server: ServerProcess, database: Path) -> None:
        self.server = server
        self.url = server.url
        self._database = database

    def store(self) -> TokenStore:
        return open_store(self._database)

    def reset(self) -> None:
        """Put each class's newest version into use, after its first; no class is paused."""
        store = self.store()
        for name in names():
            numbers = [version.number for version in store.list_versions(SCOPE, name)]
            for number in (numbers[0], numbers[-1]):
                store.promote(SCOPE, name, number, who="test", why="reset")
            store.pause_class(SCOPE, name, False, who="test", why="reset")
        store.close()

    def active(self, name: str) -> int | None:
        store = self.store()
        try:
            return store.get_token(SCOPE, name).aliases.get("active")
        finally:
            store.close()

    def model_version(self) -> str:
        """What Label Studio is told at /setup."""
        body = {"project": "2.1795379479", "schema": label_config()}
        answer = requests.post(f"{self.url}/setup", json=body, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["model_version"])

    def masks(self) -> list[object]:
        """The regions Label Studio gets for a picture that shows the second class: labels and run-length codes."""
        scene = scenes().of(names()[1], "correction")[1]
        task = event(900, names()[1], scene.image, scene.truth)["task"]
        body = {"project": "2.1795379479", "label_config": label_config(), "tasks": [task]}
        answer = requests.post(f"{self.url}/predict", json=body, timeout=600)
        answer.raise_for_status()
        return [region["value"] for region in answer.json()["results"][0]["result"]]


def label_config() -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in names())
    return f'<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">{labels}</BrushLabels></View>'


def event(number: int, name: str, image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """An annotation as Label Studio 1.23.2 sends it, its picture in the task itself."""
    body: dict[str, Any] = copy.deepcopy(json.loads(CAPTURE.read_text("utf-8"))["body"])
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    body["project"]["label_config"] = label_config()
    picture = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    body["task"] |= {"id": number, "data": {"image": picture}}
    body["annotation"]["id"] = number
    region = body["annotation"]["result"][0]
    region |= {"original_width": image.shape[1], "original_height": image.shape[0]}
    region["value"] |= {"rle": encode_mask(mask), "brushlabels": [name]}
    return body


def seed(server: ServerProcess) -> None:
    """:data:`COUNTS` corrections of each class; then one that fails and one that waits for its next try.

    Each is learned before the next is sent, so that each class has its history.
    """
    wait_for(lambda: server.status()["state"] == "ready", "the base model")
    number = 0
    for name, count in zip(names(), COUNTS, strict=True):
        for scene in scenes().of(name, "correction")[:count]:
            number += 1
            _post(server, event(number, name, scene.image, scene.truth))
            wait_for(server.idle, f"correction {number} of {name} to be learned")
    scene = scenes().of(names()[0], "correction")[1]
    broken = event(number + 1, names()[0], scene.image, scene.truth)
    broken["task"]["data"]["image"] = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    _post(server, broken)
    wait_for(server.idle, "the broken correction to fail")
    unreachable = event(number + 2, names()[0], scene.image, scene.truth)
    unreachable["task"]["data"]["image"] = "/data/upload/2/scene_7.png"
    _post(server, unreachable)
    wait_for(lambda: _tried(server), "the unreachable correction's first try")


def _post(server: ServerProcess, body: dict[str, Any]) -> None:
    answer = requests.post(f"{server.url}/webhook", json=body, timeout=60)
    assert answer.status_code == 201, answer.text


def _tried(server: ServerProcess) -> bool:
    return "is tried again in" in server.text()
