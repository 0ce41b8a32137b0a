"""Nothing is stored twice for one version while Label Studio goes through a batch one by one and stores it at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from protocol_helpers import CONFIG, DrawnApplication, task

from ovam_labeler.tools.label_studio import sweeps as sweeps_module
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.sweeps import SILENT_SECONDS, STORING_EACH, STORING_SECONDS, Sweeps
from token_store.entities import Scope

SCOPE = Scope("default", "2")
OTHER = Scope("default", "3")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_will_be_asked_for_and_what_was_given_is_pending_until_it_is_stored() -> None:
    clock = Clock()
    sweeps = Sweeps(clock)
    sweeps.begin(SCOPE, ["1", "2", "3", ""])
    assert [sweeps.pending(SCOPE, name, "v1") for name in ("1", "2", "3", "4", "")] == [True, True, True, False, False]
    assert not sweeps.pending(OTHER, "1", "v1")
    for name in ("1", "2"):
        clock.now += SILENT_SECONDS - 1  # a sweep may take long, as long as it goes on
        sweeps.answered(SCOPE, name, "v1")
    assert sweeps.pending(SCOPE, "1", "v1") and not sweeps.pending(SCOPE, "1", "v2")
    sweeps.passed_over(SCOPE, "3")
    assert not sweeps.pending(SCOPE, "3", "v1"), "nothing was given, so nothing will be stored"
    clock.now += STORING_SECONDS + 3 * STORING_EACH - 1
    assert sweeps.pending(SCOPE, "1", "v1"), "the last one was asked for; all are being stored"
    clock.now += 1
    assert not sweeps.pending(SCOPE, "1", "v1")


def test_a_sweep_that_goes_silent_was_given_up() -> None:
    clock = Clock()
    sweeps = Sweeps(clock)
    sweeps.begin(SCOPE, ["1", "2"])
    sweeps.answered(SCOPE, "1", "v1")
    clock.now += SILENT_SECONDS
    assert not sweeps.pending(SCOPE, "1", "v1") and not sweeps.pending(SCOPE, "2", "v1")
    sweeps.answered(SCOPE, "2", "v2")
    assert sweeps.pending(SCOPE, "2", "v2") and not sweeps.pending(SCOPE, "1", "v1")
    assert not sweeps.swept(SCOPE, "2", "v2"), "asked for by itself"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps_module, "REMEMBERED", 5)
    sweeps = Sweeps(Clock())
    sweeps.begin(SCOPE, map(str, range(20)))
    assert sum(sweeps.pending(SCOPE, str(n), "v") for n in range(20)) == 5


def test_a_batch_asked_for_again_is_not_begun_again_while_label_studio_goes_through_it(
    make_application: Callable[..., DrawnApplication],
) -> None:
    application = make_application(predict_budget=10.0)
    clock = Clock()
    service = PredictService(application, application.tool, clock)  # type: ignore[arg-type]
    tasks = [task(n) for n in range(1, 21)]
    application.proposer.before_return = lambda: setattr(clock, "now", clock.now + 3)
    (first,) = service.answer(SCOPE, CONFIG, tasks)
    version = first["model_version"]
    assert service.is_asked_for(SCOPE, {"id": 7}, version), "no push for what will be asked for"
    assert service.answer(SCOPE, CONFIG, tasks) == [[]] * 20, "the second batch adds nothing"
    for one in tasks:
        (answer,) = service.answer(SCOPE, CONFIG, [one])
        assert answer["model_version"] == version
    assert service.is_asked_for(SCOPE, {"id": 1}, version), "given, and not stored before the last one"
    assert service.answer(SCOPE, CONFIG, tasks) == [[]] * 20
    clock.now += STORING_SECONDS + 20 * STORING_EACH
    assert not service.is_asked_for(SCOPE, {"id": 1}, version)
    assert len(service.answer(SCOPE, CONFIG, tasks)[0]["result"]) == 2, "asked for later, it is answered again"


def test_a_batch_with_further_tasks_is_answered_for_those(make_application: Callable[..., DrawnApplication]) -> None:
    application = make_application(predict_budget=10.0)
    clock = Clock()
    service = PredictService(application, application.tool, clock)  # type: ignore[arg-type]
    application.proposer.before_return = lambda: setattr(clock, "now", clock.now + 3)
    service.answer(SCOPE, CONFIG, [task(n) for n in range(1, 21)])
    answers = service.answer(SCOPE, CONFIG, [task(n) for n in (1, 2, 21, 3)])
    assert [bool(answer) for answer in answers] == [False, False, True, False]
