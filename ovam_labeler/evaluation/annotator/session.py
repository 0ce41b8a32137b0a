"""Has an annotator label a stream of pictures, with proposals, through the routes that Label Studio calls.

The same HTTP application, services, worker and store as ``ovam-labeler serve``; Label Studio and the network are missing.
As in Label Studio, the next picture is asked for in the moment of Submit, so its masks are those of before this
correction was learned; nobody waits for learning.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from flask import Flask
from flask.testing import FlaskClient

from ovam_labeler.demo.annotator import drawn_region
from ovam_labeler.demo.project import DemoError, label_config, masks_of
from ovam_labeler.demo.scenes import Scene
from ovam_labeler.evaluation.annotator.edit_time import Pace, Work, draw_work, edit_work
from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.image_source import encode_png
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.rle import encode_mask
from token_store.entities import Scope

#: Seconds after which waiting for the worker is given up.
PATIENCE = 600.0

#: What an annotator met: no proposal, one that is good enough, one to be mended, or one of a class that is not there.
MISSING, ACCEPTED, WRONG, FALSE = "missing", "accepted", "wrong", "false"


@dataclass(frozen=True, slots=True)
class MaskWork:
    """One class in one picture.

    Attributes:
        place: of the picture in the stream, from 0.
        met: one of the four words above.
        source: ``"word"`` or ``"token"`` that proposed; empty where nothing was proposed.
        iou: of the proposal; None where there was none.
        draw: work from nothing; None where the class is not there.
        edit: work to mend the proposal; None where there is nothing to mend.
    """

    place: int
    label: str
    met: str
    source: str
    iou: float | None
    draw: Work | None
    edit: Work | None


class Annotator:
    """Labels pictures of one project.

    Args:
        app: with Label Studio's decoder; its worker is started.
        web: its HTTP application.
        project: number of the project; each has its own corrections and tokens.
        options: the project's, as a backend's extra parameters.
        pace: says what is good enough.
    """

    def __init__(
        self,
        app: Application,
        web: Flask,
        project: int,
        labels: Sequence[str],
        options: Mapping[str, Any],
        pace: Pace,
    ) -> None:
        self._app, self._pace, self._labels = app, pace, list(labels)
        self._client: FlaskClient = web.test_client()
        self._project, self._config = project, label_config(labels)
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._post(
            "/setup", {"project": f"{project}.1", "schema": self._config, "extra_params": {**options, "push": 0}}
        )

    def label(self, scenes: Sequence[Scene]) -> list[MaskWork]:
        """Label every picture exactly, in order, and return what there was to do."""
        found: list[MaskWork] = []
        ahead = self._predict(0, scenes[0]) if scenes else {}
        for place, scene in enumerate(scenes):
            proposed = ahead
            if place + 1 < len(scenes):
                ahead = self._predict(place + 1, scenes[place + 1])
            work = self._look(place, scene, proposed)
            self._submit(place, scene, proposed, work)
            self._settle()
            found += work
        return found

    def _predict(self, place: int, scene: Scene) -> dict[str, Any]:
        body = {"project": f"{self._project}.1", "label_config": self._config, "tasks": [_task(place, scene)]}
        answer = self._post("/predict", body)["results"]
        if len(answer) != 1 or not isinstance(answer[0], dict):
            raise DemoError(f"The backend gave no prediction for picture {place}: {answer!r:.200}")
        made: dict[str, Any] = answer[0]
        return made

    def _look(self, place: int, scene: Scene, prediction: Mapping[str, Any]) -> list[MaskWork]:
        """Compare the proposals with the exact masks."""
        proposed = masks_of(prediction)
        served = self._app.store.last_served(self._scope(), str(place + 1))
        tokens = served.token_versions if served is not None else {}
        found = []
        for label in self._labels:
            mask, truth = proposed.get(label), scene.masks.get(label)
            source = "" if mask is None else "token" if tokens.get(label) else "word"
            draw = None if truth is None else draw_work(truth, self._pace)
            if mask is None and truth is None:
                continue
            if mask is None or truth is None:
                met = MISSING if mask is None else FALSE
                found.append(MaskWork(place, label, met, source, None, draw, None))
                continue
            edit = edit_work(mask, truth, self._pace)
            met = ACCEPTED if edit is None else WRONG
            found.append(MaskWork(place, label, met, source, iou(mask, truth), draw, edit))
        return found

    def _submit(self, place: int, scene: Scene, prediction: Mapping[str, Any], work: Sequence[MaskWork]) -> None:
        """Submit as the editor would write it."""
        met = {one.label: one.met for one in work}
        result = []
        for region in prediction["result"]:
            (label,) = region["value"]["brushlabels"]
            if met[label] == ACCEPTED:
                result.append({**region, "origin": "prediction"})
            elif met[label] == WRONG:
                value = {**region["value"], "rle": encode_mask(scene.masks[label])}
                result.append({**region, "value": value, "origin": "prediction-changed"})
        result += [drawn_region(label, scene.masks[label]) for label, how in met.items() if how == MISSING]
        self._now += timedelta(minutes=1)
        stamp = self._now.isoformat()
        annotation = {
            "id": place + 1,
            "result": result,
            "parent_prediction": place + 1,
            "created_at": stamp,
            "updated_at": stamp,
            "completed_by": 1,
            "was_cancelled": False,
        }
        project = {"id": self._project, "label_config": self._config}
        event = {"action": "ANNOTATION_CREATED", "annotation": annotation, "task": _task(place, scene)}
        self._post("/webhook", {**event, "project": project})

    def _settle(self) -> None:
        """Wait until the worker has nothing left."""
        end = time.monotonic() + PATIENCE
        while self._app.store.list_jobs(states=("queued", "running"), limit=1):
            if time.monotonic() > end:
                raise DemoError(f"The worker is not done after {PATIENCE:.0f} s.")
            time.sleep(0.05)

    def _scope(self) -> Scope:
        return Scope("default", str(self._project))

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self._client.post(path, json=body)
        if answer.status_code >= 400:
            raise DemoError(
                f"The backend answered {answer.status_code} at {path}: {answer.get_data(as_text=True):.200}"
            )
        return answer.get_json()


def _task(place: int, scene: Scene) -> dict[str, Any]:
    picture = "data:image/png;base64," + base64.b64encode(encode_png(np.ascontiguousarray(scene.image))).decode()
    return {"id": place + 1, "data": {"image": picture}}
