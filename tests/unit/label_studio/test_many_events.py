"""Many webhooks, doubled, reordered and lost, with Label Studio away in between: every correction is learned once.

200 events here; the same with 2,000 against the real Label Studio is ``tests/soak/test_events.py``.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fake_studio import FakeStudio
from protocol_helpers import DrawnApplication, brush, half

from ovam_labeler.errors import FetchError
from ovam_labeler.jobs.worker import JobRunner
from ovam_labeler.tools.label_studio.event_service import EventService
from ovam_labeler.tools.label_studio.reconcile import Reconciler
from token_store.entities import Job, Scope
from token_store.sqlalchemy_store import open_store

SCOPE = Scope("default", "2")
EVENTS = 200
TASKS = 40


class Shaken:
    """A network that doubles 30 % of the events, loses 5 %, and delivers each up to twelve places later or earlier."""

    def __init__(self, seed: int, handle: Callable[[dict[str, Any]], None]) -> None:
        self.chance = random.Random(seed)
        self.handle = handle
        self.waiting: list[dict[str, Any]] = []
        self.sent = self.lost = self.doubled = 0

    def __call__(self, event: dict[str, Any]) -> None:
        self.sent += 1
        if self.chance.random() < 0.05:
            self.lost += 1
            return
        copies = 2 if self.chance.random() < 0.3 else 1
        self.doubled += copies - 1
        for _ in range(copies):
            self.waiting.insert(self.chance.randint(max(0, len(self.waiting) - 12), len(self.waiting)), event)
        while len(self.waiting) > 24:
            self.handle(self.waiting.pop(0))

    def flush(self) -> None:
        while self.waiting:
            self.handle(self.waiting.pop(0))


class Counting:
    """Learns by counting: which states of which annotations were learned."""

    def __init__(self, application: DrawnApplication) -> None:
        self.application = application
        self.learned: list[tuple[str, str]] = []

    def run(self, job: Job, _progress: Any) -> dict[str, Any]:
        correction = self.application.store.get_correction(job.payload["correction_id"])
        if correction.state == "retracted":
            return {}
        self.learned.append((correction.annotation_id, correction.updated_at))
        self.application.store.set_correction_state(correction.id, "learned")
        return {}

    def gave_up(self, job: Job, sentence: str) -> None:
        raise AssertionError(sentence)


def annotate(studio: FakeStudio, chance: random.Random) -> None:
    """One thing that an annotator does."""
    living = sorted(studio.annotations)
    mask = half()
    mask[chance.randrange(24), chance.randrange(32)] ^= True
    result = [brush(chance.choice(("disc", "bar")), mask)]
    deed = chance.choices(("submit", "update", "delete", "skip"), (6, 3, 1, 1))[0] if living else "submit"
    match deed:
        case "submit":
            studio.submit(chance.randint(1, TASKS), result)
        case "skip":
            studio.submit(chance.randint(1, TASKS), [], was_cancelled=True)
        case "update":
            studio.update(chance.choice(living), result)
        case "delete":
            studio.delete(chance.choice(living))


@pytest.mark.parametrize("seed", [0])
def test_corrections_learned_are_corrections_made_each_once(application: DrawnApplication, seed: int) -> None:
    studio = FakeStudio(tasks=TASKS)
    events = EventService(application, application.notify)  # type: ignore[arg-type]

    class Known:
        def knows(self, _name: str) -> bool:
            return True

        def client(self, _name: str) -> Any:
            return studio.client()

    found = Reconciler(Known(), events, application)  # type: ignore[arg-type]
    network = Shaken(seed, lambda event: events.handle("default", event) and None)
    studio.deliver = network
    learner = Counting(application)
    runner = JobRunner(application.store, {"learn": learner}, threading.Event())

    def work(most: int) -> None:
        for _ in range(most):
            if (job := application.store.claim_job("worker", ["learn"])) is None:
                return
            runner.run(job)

    chance = random.Random(seed)
    for number in range(EVENTS):
        annotate(studio, chance)
        work(chance.randint(0, 2))
        if number == EVENTS // 2:  # Label Studio is restarted: nothing answers, then it does again
            studio.down = True
            with pytest.raises(FetchError):
                found.run(SCOPE)
            studio.down = False
            found.run(SCOPE)
    network.flush()
    found.run(SCOPE, whole=True)
    work(10 * EVENTS)

    assert network.sent == EVENTS and network.lost >= 3 and network.doubled >= 40
    truth = {
        str(a["id"]): (tuple(r["value"]["brushlabels"][0] for r in a["result"]), a["updated_at"])
        for a in studio.annotations.values()
        if not a["was_cancelled"]
    }
    stored = application.store.list_corrections(SCOPE, states=("learned",), limit=10_000)
    assert {c.annotation_id: (c.labels, c.updated_at) for c in stored} == truth
    assert len(stored) == len(truth)
    assert len(learner.learned) == len(set(learner.learned)), "a correction was learned twice"
    assert application.store.list_corrections(SCOPE, states=("pending", "failed")) == []
    unfinished = ("queued", "running", "failed")  # reviews of classes are the registry's own and are not run here
    assert application.store.list_jobs(states=unfinished, kinds=("learn",), limit=10_000) == []
    assert found.run(SCOPE, whole=True) == 0
    assert open_store(application.settings.resolved_database_url()).check() == []
