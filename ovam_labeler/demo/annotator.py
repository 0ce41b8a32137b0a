"""Plays the annotator over Label Studio's own API, as the editor would write it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovam_labeler.demo.project import BATCH, DemoError, DemoProject, label_config, masks_of
from ovam_labeler.demo.scenes import Scene
from ovam_labeler.evaluation.measure import Tick
from ovam_labeler.evaluation.play import Served
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.rle import encode_mask
from token_store.entities import Scope

#: Seconds without any job finishing after which waiting is given up.
PATIENCE = 300.0
#: Seconds in which a submitted correction should have reached the backend.
ARRIVAL = 20.0


def corrected_result(prediction: Mapping[str, Any] | None, label: str, truth: np.ndarray) -> list[dict[str, Any]]:
    """The prediction's regions with those of ``label`` edited to the exact truth.

    An existing region is edited (``prediction-changed``, its id kept), a missing one is drawn (``manual``).  Regions of
    other labels stay untouched, so that exactly one mask is corrected.

    Args:
        truth: bool (H, W) of the image's own size, not empty.
    """
    result: list[dict[str, Any]] = []
    edited = False
    for region in prediction["result"] if prediction else ():
        if label not in region["value"]["brushlabels"]:
            result.append({**region, "origin": "prediction"})
        elif not edited:  # one region carries the whole object; further ones of the label are erased
            value = {**region["value"], "rle": encode_mask(truth)}
            result.append({**region, "value": value, "origin": "prediction-changed"})
            edited = True
    if not edited:
        result.append(drawn_region(label, truth))
    return result


def drawn_region(label: str, mask: np.ndarray) -> dict[str, Any]:
    """A region of ``label`` as the editor submits one drawn with the brush.  ``mask``: bool (H, W), not empty."""
    height, width = mask.shape
    return {
        "id": secrets.token_hex(5),
        "from_name": "tag",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "manual",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_mask(mask), "brushlabels": [label]},
    }


class StudioLoop:
    """Implements :class:`ovam_labeler.evaluation.play.Loop` over a real Label Studio.

    Args:
        app: the application behind the connected backend; its lists are read here, nothing is written.
        scope: where the project's corrections are stored.
        labels: of the project.
    """

    def __init__(self, app: Application, project: DemoProject, scope: Scope, labels: Sequence[str]) -> None:
        self.app, self.project, self.scope, self.labels = app, project, scope, list(labels)
        self.submitted: list[str] = []
        self._before = {job.id for job in app.store.list_jobs(limit=10_000)}

    def predict(self, scenes: Sequence[Scene], tick: Tick) -> Served:
        """Batches through the data manager's action, then all stored predictions in one request."""
        names = [s.name for s in scenes]
        for at in range(0, len(names), BATCH):
            self.project.retrieve(names[at : at + BATCH])
            tick(0.95 * min(1.0, (at + BATCH) / len(names)))
        stored = self.project.predictions()
        # Label Studio says "Retrieved" even where a request timed out and nothing was stored: look, and ask singly.
        if lost := self._outdated(names, stored):
            for name in lost:
                self.project.retrieve([name])
            stored = self.project.predictions()
        if lost := self._outdated(names, stored):
            raise DemoError(
                f"Label Studio stored no new prediction for {len(lost)} of {len(names)} pictures, the first is '{lost[0]}'."
            )
        tick(1.0)
        return {name: masks_of(stored[name]) for name in names}

    def _outdated(self, names: Sequence[str], stored: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Pictures whose newest stored prediction is missing or not of the version that the backend names now."""
        options = project_options(self.app.settings, self.app.store.get_project_options(self.scope))
        labels = parse_label_config(label_config(self.labels)).labels
        version = self.app.proposer.model_version(labels, self.scope, options)
        return [n for n in names if n not in stored or stored[n]["model_version"] != version]

    def correct(self, scenes: Sequence[Scene], tick: Tick) -> None:
        stored = self.project.predictions()
        for i, scene in enumerate(scenes):
            prediction = stored.get(scene.name)
            made = self.project.client.submit_annotation(
                self.project.tasks[scene.name],
                corrected_result(prediction, scene.concept, scene.truth),
                lead_time=10.0,
                **({"parent_prediction": prediction["id"]} if prediction else {}),
            )
            self.submitted.append(str(made["id"]))
            tick((i + 1) / len(scenes))

    def settle(self, tick: Tick) -> None:
        """Wait for the jobs of all corrections.

        Raises:
            DemoError: a correction did not arrive, a job failed, or nothing moves for :data:`PATIENCE` seconds.
        """
        self._await_arrival()
        last, moved = -1, time.monotonic()
        while True:
            jobs = [j for j in self.app.store.list_jobs(kinds=("learn",), limit=10_000) if j.id not in self._before]
            if failed := [j for j in jobs if j.state == "failed"]:
                raise DemoError(f"Learning failed: {failed[0].message}")
            done = sum(j.state in ("done", "cancelled") for j in jobs)
            if done == len(jobs):
                tick(1.0)
                return
            tick(done / len(jobs))
            if done != last:
                last, moved = done, time.monotonic()
            elif time.monotonic() - moved > PATIENCE:
                raise DemoError(
                    f"Learning stands still: {done} of {len(jobs)} jobs are done after {PATIENCE:.0f} s more."
                )
            time.sleep(0.2)

    def _await_arrival(self) -> None:
        """Label Studio gives a webhook one second and one try: a busy machine may lose it, so have the lost looked for."""
        for patience in (ARRIVAL, 3 * ARRIVAL):
            begin = time.monotonic()
            while lost := set(self.submitted) - {
                c.annotation_id for c in self.app.store.list_corrections(self.scope, limit=10_000)
            }:
                if time.monotonic() - begin > patience:
                    break
                time.sleep(0.2)
            if not lost:
                return
            self.project.ask_training()
        raise DemoError(f"{len(lost)} of {len(self.submitted)} corrections did not reach the backend.")
