"""The real services over a small base model that is real, with the fake as their Label Studio."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fake_studio import FakeStudio
from protocol_helpers import predict_body

sys.path.insert(0, str(Path(__file__).parents[1] / "application"))

from colour_model import COLOURS, ColourModel, box, scene

from ovam_labeler.application import build_application
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.corrections import TOOL
from ovam_labeler.tools.label_studio.tool import LabelStudioTool

__all__ = ["COLOURS", "ServedApplication", "box", "scene"]


class ServedApplication:
    """Attributes:
    model: counts its UNet passes (``model.reader.unet_passes``).
    """

    def __init__(self, settings: Settings, tasks: int = 0) -> None:
        self.model = ColourModel()
        self.studio = FakeStudio(tasks=tasks)
        tool = LabelStudioTool(settings)
        tool.connections.client = lambda name="default": self.studio.client(settings)  # type: ignore[method-assign]
        self.application = build_application(settings, {TOOL: tool}, loader=self.model.load)
        self.app = create_app(self.application)
        self.http = self.app.test_client()

    def predict(self, **changes: Any) -> list[dict[str, Any]]:
        """Of every task."""
        body = predict_body(list(self.studio.tasks.values()), **changes)
        return list(self.http.post("/predict", json=body).get_json()["results"])
