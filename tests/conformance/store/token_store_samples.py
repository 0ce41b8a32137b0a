"""Values that the store's conformance tests put in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from token_store.entities import NewCorrection, NewTokenVersion, Scope

PROJECT = Scope("default", "1")
OTHER = Scope("second", "1")


def version(value: float = 1.0, **changes: Any) -> NewTokenVersion:
    new = NewTokenVersion(
        fingerprint={"space": "abc", "model": "tiny", "settings": {"steps": 5}},
        embedding=np.array([[value, 0.5, -1.0], [2.0, 1e-30, value]], np.float32),
        recipe={"lr": 0.1},
        metrics={"train_iou": 0.5, "losses": [1.0, 0.5]},
        created_by="tester",
    )
    return replace(new, **changes)


def correction(annotation: str = "7", updated: str = "2026-11-23T10:00:00.000000Z", **changes: Any) -> NewCorrection:
    new = NewCorrection(
        scope=PROJECT,
        annotation_id=annotation,
        updated_at=updated,
        task_id="3",
        image_ref="/data/upload/1/cat.png",
        payload={"annotation": {"id": 7, "result": []}},
        labels=("cat", "chat à poil"),
        annotator="ann",
    )
    return replace(new, **changes)
