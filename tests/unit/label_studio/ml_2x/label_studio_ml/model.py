from __future__ import annotations

import json
from abc import ABC
from typing import Any

#: (project id, key) -> text; upstream keeps it in SQLite, and refuses what is no text.
CACHE: dict[tuple[str, str], str] = {}


class LabelStudioMLBase(ABC):  # noqa: B024
    INITIAL_MODEL_VERSION = "0.0.1"
    TRAIN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.use_label_config(label_config)
        if not self.model_version:
            self.set("model_version", self.INITIAL_MODEL_VERSION)
        self.setup()

    def setup(self) -> None:  # noqa: B027
        pass

    def use_label_config(self, label_config: str) -> None:
        if self.get("label_config") != label_config:
            self.set("label_config", label_config)

    def set_extra_params(self, extra_params: str) -> None:
        self.set("extra_params", extra_params)

    @property
    def extra_params(self) -> Any:
        return json.loads(self.get("extra_params") or "{}")

    def get(self, key: str) -> str | None:
        return CACHE.get((self.project_id, key))

    def set(self, key: str, value: str) -> None:
        if not isinstance(value, str):
            raise ValueError("Value must be a string")
        CACHE[self.project_id, key] = value

    def has(self, key: str) -> bool:
        return (self.project_id, key) in CACHE

    @property
    def label_config(self) -> str | None:
        return self.get("label_config")

    @property
    def model_version(self) -> str | None:
        return self.get("model_version")

    def predict(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        return None

    def process_event(self, event: str, data: Any, job_id: str, additional_params: dict[str, Any]) -> Any:
        if event in self.TRAIN_EVENTS:
            return self.fit(event=event, data=data, job_id=job_id, **additional_params)
        return None

    def fit(self, event: str, data: Any, **additional_params: Any) -> Any:
        return None
