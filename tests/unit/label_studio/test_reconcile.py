"""Annotations whose event never arrived."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from protocol_helpers import DrawnApplication, annotation_event, brush, half

from ovam_labeler.errors import FetchError
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.event_service import EventService
from ovam_labeler.tools.label_studio.reconcile import Reconciler
from token_store.entities import NewTokenVersion, Scope

SCOPE = Scope("default", "2")


class ExportingStudio(LabelStudioClient):
    """A Label Studio whose project 2 holds the given annotations."""

    url = "http://studio"

    def __init__(self, *annotations: dict[str, Any]) -> None:
        self.annotations = list(annotations)
        self.projects: list[int] = []

    def call(self, method: str, path: str, **_: Any) -> Any:
        return annotation_event([])["project"]

    def annotated_tasks(self, project: int) -> list[dict[str, Any]]:
        self.projects.append(project)
        if project == 404:
            raise FetchError("Label Studio answered 404.")
        return [{**annotation_event([])["task"], "annotations": self.annotations}]


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = annotation_event([brush("disc", half())], id=number)["annotation"]
    return made | changes


def reconciler(application: DrawnApplication, studio: ExportingStudio) -> Reconciler:
    events = EventService(application, application.notify)  # type: ignore[arg-type]
    return Reconciler(studio, events, application)  # type: ignore[arg-type]


def token() -> NewTokenVersion:
    embedding = np.ones((2, 4), dtype=np.float32)
    return NewTokenVersion({"space": "ab" * 32, "model": "drawn", "settings": {}}, embedding, {}, {})


def test_lost_ones_are_stored_known_ones_recognised_and_bad_ones_passed_over(application: DrawnApplication) -> None:
    studio = ExportingStudio(annotation(1), annotation(2, was_cancelled=True), annotation(3), annotation(4, id=None))
    found = reconciler(application, studio)
    assert found.run(SCOPE) == 2 and found.run(SCOPE) == 0
    assert sorted(c.annotation_id for c in application.store.list_corrections(SCOPE)) == ["1", "3"]
    assert application.notified == 2


def test_at_start_the_projects_that_learned_are_looked_through(
    application: DrawnApplication, caplog: pytest.LogCaptureFixture
) -> None:
    for scope in (SCOPE, Scope("default", "404"), Scope("team-a", "7"), Scope.everywhere()):
        application.store.add_version(scope, "disc", token())
    studio = ExportingStudio(annotation(1))
    reconciler(application, studio).start_known()
    end = time.monotonic() + 60
    while not (application.store.list_corrections(SCOPE) and "404" in caplog.text):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert sorted(studio.projects) == [2, 404]  # another connection's Label Studio is not known


def test_without_a_label_studio_nothing_is_looked_for(application: DrawnApplication) -> None:
    studio = ExportingStudio(annotation(1))
    studio.url = None  # type: ignore[assignment]
    assert reconciler(application, studio).start(SCOPE) is False
