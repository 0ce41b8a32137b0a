"""Annotations whose event never arrived, found over a Label Studio as measured (``fake_studio``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_studio import FakeStudio
from protocol_helpers import CONFIG, DrawnApplication, brush, half

from ovam_labeler.errors import FetchError
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.event_service import EventService
from ovam_labeler.tools.label_studio.reconcile import PAGE, Reconciler
from token_store.entities import NewTokenVersion, Scope

SCOPE = Scope("default", "2")


class OneConnection:
    """Knows the fake as ``default``."""

    def __init__(self, studio: FakeStudio) -> None:
        self._client = studio.client()

    def knows(self, name: str) -> bool:
        return name == "default"

    def client(self, _name: str) -> LabelStudioClient:
        return self._client


def follow(application: DrawnApplication, studio: FakeStudio) -> tuple[EventService, Reconciler]:
    events = EventService(application, application.notify)  # type: ignore[arg-type]
    studio.deliver = lambda event: events.handle("default", event) and None
    return events, Reconciler(OneConnection(studio), events, application)  # type: ignore[arg-type]


def pending(application: DrawnApplication) -> dict[str, tuple[str, ...]]:
    return {c.annotation_id: c.labels for c in application.store.list_corrections(SCOPE, states=("pending",))}


def disc(**region: Any) -> list[dict[str, Any]]:
    return [brush("disc", half(), **region)]


def test_created_updated_and_deleted_ones_whose_event_was_lost(application: DrawnApplication) -> None:
    studio = FakeStudio()
    _, found = follow(application, studio)
    kept, changed, gone = studio.submit(1, disc()), studio.submit(2, disc()), studio.submit(3, disc())
    assert found.run(SCOPE) == 0
    with studio.silent():
        studio.update(changed, [brush("bar", half())])
        studio.delete(gone)
        new, skipped = studio.submit(3, disc()), studio.submit(3, [], was_cancelled=True)
    assert found.run(SCOPE) == 3
    assert pending(application) == {str(kept): ("disc",), str(changed): ("bar",), str(new): ("disc",)}
    assert found.run(SCOPE) == 0 and found.run(SCOPE, whole=True) == 0
    with studio.silent():
        studio.update(skipped, [])
        studio.delete_task(1)
    assert found.run(SCOPE, whole=True) == 1 and set(pending(application)) == {str(changed), str(new)}


def test_only_what_changed_is_asked_for_again(application: DrawnApplication) -> None:
    studio = FakeStudio(tasks=40)
    _, found = follow(application, studio)
    with studio.silent():
        for task in range(1, 40):
            studio.submit(task, disc())
        studio._clock = studio._clock.replace(hour=10)
        studio.submit(40, disc())
    assert found.run(SCOPE) == 40
    with studio.silent():
        studio.submit(7, disc())
    studio.calls.clear()
    assert found.run(SCOPE) == 1
    assert [path for _, path in studio.calls if path.endswith("/annotations/")] == [
        f"/api/tasks/{task}/annotations/"
        for task in (40, 7)  # 40 lies within the overlap
    ]


def test_more_tasks_than_a_page_and_many_of_one_moment(application: DrawnApplication) -> None:
    studio = FakeStudio(tasks=2 * PAGE + 50)
    for task in studio.tasks.values():
        task["updated_at"] = "2026-11-24T08:00:00Z"  # as after one statement that changed them all
    _, found = follow(application, studio)
    with studio.silent():
        for task in (1, PAGE, PAGE + 1, 2 * PAGE + 50):
            studio.submit(task, disc())
    for task in studio.tasks.values():
        task["updated_at"] = "2026-11-24T08:00:00Z"
    assert found.run(SCOPE) == 4


def test_a_list_that_misses_an_annotation_takes_nothing_back(application: DrawnApplication) -> None:
    studio = FakeStudio()
    _, found = follow(application, studio)
    annotation = studio.submit(1, disc())
    real = studio._annotations
    studio._annotations = lambda task, **_: (200, [])  # type: ignore[method-assign, assignment]
    assert found.run(SCOPE, whole=True) == 0 and set(pending(application)) == {str(annotation)}
    studio._annotations = real  # type: ignore[method-assign]


def test_a_renamed_label_keeps_what_it_learned(application: DrawnApplication) -> None:
    studio = FakeStudio()
    _, found = follow(application, studio)
    first = studio.submit(1, disc())
    embedding = np.ones((2, 4), dtype=np.float32)
    version = NewTokenVersion({"space": "ab" * 32, "model": "drawn", "settings": {}}, embedding, {}, {})
    application.store.add_version(SCOPE, "disc", version, aliases=("active",))
    late = studio.project | {}
    studio.set_config(CONFIG.replace('"disc"', '"plate"'))
    assert set(application.store.find_active(SCOPE, ["disc", "plate"])) == {"plate"}
    # Label Studio leaves the old name in old annotations, and an event may be older than the config.
    second = studio.submit(2, disc())
    studio.deliver({"action": "PROJECT_UPDATED", "project": late})
    assert pending(application) == {str(first): ("plate",), str(second): ("plate",)}
    (correction,) = [c for c in application.store.list_corrections(SCOPE) if c.annotation_id == str(first)]
    image, _ = application.tool.image_of(correction)
    ((truth,), notes) = application.tool.truths_of(correction, image)
    assert (truth.label, notes) == ("plate", []) and truth.mask[:, :10].all()
    with studio.silent():
        studio.set_config(CONFIG.replace('"disc"', '"dish"'))
    found.run(SCOPE)
    assert set(pending(application).values()) == {("dish",)}
    assert set(application.store.find_active(SCOPE, ["plate", "dish"])) == {"dish"}


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.replace('<Label value="disc"/>', ""),
        CONFIG.replace('<Label value="disc"/>', '<Label value="plate"/><Label value="cup"/>'),
        CONFIG.replace('<Label value="disc"/><Label value="bar"/>', '<Label value="bar"/><Label value="plate"/>'),
        CONFIG.replace('<Label value="disc"/>', '<Label value="plate" background="red"/>'),
        "<View",
    ],
)
def test_what_may_be_no_rename_is_left_alone(application: DrawnApplication, config: str) -> None:
    studio = FakeStudio()
    follow(application, studio)
    annotation = studio.submit(1, disc())
    studio.set_config(config)
    assert pending(application) == {str(annotation): ("disc",)}


def test_an_unusable_annotation_is_passed_over(application: DrawnApplication) -> None:
    studio = FakeStudio()
    _, found = follow(application, studio)
    with studio.silent():
        studio.submit(1, disc())
        broken = studio.submit(2, disc())
    studio.annotations[broken]["updated_at"] = None
    studio.annotations[broken]["created_at"] = None
    assert found.run(SCOPE) == 1


def test_at_start_every_known_project_is_looked_through(
    application: DrawnApplication, caplog: pytest.LogCaptureFixture
) -> None:
    studio = FakeStudio()
    _, found = follow(application, studio)
    for scope in (SCOPE, Scope("default", "404"), Scope("team-a", "7")):
        application.store.put_project_options(scope, {})
    with studio.silent():
        studio.submit(1, disc())
    found.start_known()
    end = time.monotonic() + 60
    while not (pending(application) and "default/404 could not be looked through" in caplog.text):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "team-a" not in caplog.text  # its Label Studio is not known


def test_periodically(make_application: Callable[..., DrawnApplication]) -> None:
    application = make_application(reconcile_seconds=0.05)
    application.store.put_project_options(SCOPE, {})
    studio = FakeStudio()
    _, found = follow(application, studio)
    found.start_periodic()
    with studio.silent():
        studio.submit(1, disc())
    end = time.monotonic() + 60
    while not pending(application):
        assert time.monotonic() < end
        time.sleep(0.02)
    found.stop()


def test_a_label_studio_that_is_down_is_an_error_and_the_cursor_stays(application: DrawnApplication) -> None:
    studio = FakeStudio()
    _, found = follow(application, studio)
    found.run(SCOPE)
    before = application.store.get_note(SCOPE, "reconciled")
    studio.down = True
    with pytest.raises(FetchError, match="not reachable"):
        found.run(SCOPE, whole=True)
    assert application.store.get_note(SCOPE, "reconciled") == before != {}
    assert found.start(Scope("elsewhere", "2")) is False
