"""What the protocol tests share: services small enough to predict (masks are drawn, nothing is learned), request bodies."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovam_labeler.domain import Label, LoadedImage, ProjectOptions, Proposal
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.rle import encode_mask
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from token_store import open_store
from token_store.contract import TokenStore
from token_store.entities import Scope

HERE = Path(__file__).parent
CONFIG = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="tag" toName="image"><Label value="disc"/><Label value="bar"/></BrushLabels>
</View>"""


class DrawingProposer:
    """Draws the n-th label as the n-th column stripe; the version is a counter a test can raise."""

    def __init__(self) -> None:
        self.generation = 0
        self.calls = 0
        self.absent: set[str] = set()
        self.before_return: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def propose(
        self,
        image: LoadedImage,
        labels: Sequence[Label],
        scope: Scope,
        options: ProjectOptions,
        *,
        prompt: str = "",
        progress: Any = None,
    ) -> list[Proposal]:
        with self._lock:
            self.calls += 1
        proposals = []
        for number, label in enumerate(labels):
            mask = np.zeros((image.height, image.width), dtype=bool)
            mask[:, number :: len(labels) + 1] = label.name not in self.absent
            present = label.name not in self.absent
            proposals.append(
                Proposal(label.name, mask, mask.astype(np.float32), 0.5 + 0.1 * number, present, 1.0, "word")
            )
        self.before_return()
        return proposals

    def model_version(self, labels: Sequence[Label], scope: Scope, options: ProjectOptions) -> str:
        return f"ovam-drawn-{self.generation}-{len(labels)}-{options.overlap}"


class DrawnApplication:
    """The joined services as the HTTP edge sees them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store: TokenStore = open_store(settings.resolved_database_url())
        self.proposer = DrawingProposer()
        self.tool = LabelStudioTool(settings)
        self.decoders = {"label_studio": self.tool}
        self.jobs = self
        self.notified = 0
        self.handlers: dict[str, Any] = {}
        self.listeners: list[Any] = []

    def add_handler(self, kind: str, handler: Any) -> None:
        self.handlers[kind] = handler

    def on_learned(self, listener: Any) -> None:
        self.listeners.append(listener)

    def notify(self) -> None:
        self.notified += 1


def data_uri(height: int = 24, width: int = 32, shade: int = 90) -> str:
    """A task's image that needs no host."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), shade, np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def task(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "data": {"image": data_uri(shade=number % 256)}, "project": 2, **changes}


def predict_body(tasks: Sequence[Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "project": "2.1795379479",
        "label_config": CONFIG,
        "tasks": list(tasks),
        "params": {"login": None, "password": None, "context": None},
        **changes,
    }


def brush(label: str, mask: np.ndarray, name: str = "r0", origin: str = "manual", **changes: Any) -> dict[str, Any]:
    """A brush region as the editor submits it."""
    return {
        "id": name,
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "origin": origin,
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_mask(mask), "brushlabels": [label]},
        **changes,
    }


def half(height: int = 24, width: int = 32) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[:, : width // 2] = True
    return mask


def captured(name: str) -> dict[str, Any]:
    """A request body Label Studio 1.23.2 really sent (its RLE shortened)."""
    body: dict[str, Any] = json.loads((HERE / "captures" / f"{name}.json").read_text("utf-8"))["body"]
    return body


def annotation_event(
    result: list[dict[str, Any]], action: str = "ANNOTATION_CREATED", task_id: int = 1, **annotation: Any
) -> dict[str, Any]:
    """A captured annotation event with a result of our own."""
    event = captured("webhook_ANNOTATION_CREATED")
    event["action"] = action
    event["annotation"] |= {"result": result, **annotation}
    event["task"] |= {"id": task_id, "data": {"image": data_uri(shade=task_id % 256), "other": "kept out"}}
    return event
