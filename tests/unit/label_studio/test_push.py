"""Predictions that are made in the background and handed to Label Studio."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_studio import FakeStudio
from protocol_helpers import DrawnApplication, brush, captured, half, predict_body, task

from ovam_labeler.domain import LearnResult
from ovam_labeler.tools.label_studio import asked
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.push import PRUNE_AFTER, TASKS, Pusher
from ovam_labeler.tools.label_studio.push_queue import PUSH, PushQueue
from token_store.entities import CorrectionMask, Job, Scope

SCOPE = Scope("default", "2")


class Stage:
    """The application with the fake as its one Label Studio."""

    def __init__(self, application: DrawnApplication, studio: FakeStudio) -> None:
        self.application, self.studio = application, studio
        connections = application.tool.connections
        connections.client = lambda name="default": studio.client(application.settings)  # type: ignore[method-assign]
        self.http = create_app(application).test_client()  # type: ignore[arg-type]
        self.pusher: Pusher = application.handlers[PUSH]

    def learned(self, active: bool = True, demoted: bool = False) -> None:
        self.application.proposer.generation += 1
        job = self.application.store.add_job("learn", {"connection": "default", "project": "2"})
        self.application.store.finish_job(job.id, state="cancelled")
        for listener in self.application.listeners:
            listener(job, [LearnResult(SCOPE, "disc", 1, active, "", moved=active or demoted)])

    def waiting(self) -> list[Job]:
        return self.application.store.list_jobs(states=("queued",), kinds=(PUSH,))

    def work(self) -> list[dict[str, Any]]:
        """Run what waits, due or not, until nothing does."""
        results = []
        while jobs := self.waiting():
            for job in jobs:
                self.application.store.finish_job(job.id, state="cancelled")
                results.append(dict(self.pusher.run(job, lambda _f, _m: None)))
        return results

    def versions(self, number: int) -> list[str]:
        return [p["model_version"] for p in self.studio.predictions.values() if p["task"] == number]


@pytest.fixture
def stage(make_application: Callable[..., DrawnApplication]) -> Callable[..., Stage]:
    def make(tasks: int = 4, **settings: Any) -> Stage:
        application = make_application(label_studio_url="http://studio", **settings)
        return Stage(application, FakeStudio(tasks=tasks))

    return make


def test_tokens_that_land_in_a_row_give_one_push_of_the_next_open_tasks(stage: Callable[..., Stage]) -> None:
    it = stage(tasks=5)
    it.application.store.put_project_options(SCOPE, {"push": 3})
    it.studio.submit(1, [brush("disc", half())])
    for _ in range(3):
        it.learned()
    (job,) = it.waiting()
    assert job.run_after > datetime.now(UTC) and it.application.notified == 1
    (done,) = it.work()
    assert done == {"version": "ovam-drawn-3-2-exclusive", "pushed": 3, "there": 0, "failed": 0, "pruned": 0, "left": 0}
    assert [it.versions(n) for n in (1, 2, 3, 4, 5)] == [[], *[["ovam-drawn-3-2-exclusive"]] * 3, []]
    served = it.application.store.last_served(SCOPE, "2")
    assert served is not None and served.model_version == "ovam-drawn-3-2-exclusive"
    it.learned(active=False)
    assert it.waiting() == [], "a version that is not used changes no mask"
    it.learned(active=False, demoted=True)
    assert len(it.waiting()) == 1, "a class that goes back to its word has other masks"


def test_nothing_is_stored_twice_for_one_version(stage: Callable[..., Stage]) -> None:
    it = stage(tasks=2)
    it.learned()
    it.work()
    it.application.proposer.generation -= 1
    it.learned()
    assert it.work()[0] | {"version": ""} == {
        "version": "",
        "pushed": 0,
        "there": 2,
        "failed": 0,
        "pruned": 0,
        "left": 0,
    }
    # The label stream asks for a task while it is being predicted here.
    version = "ovam-drawn-2-2-exclusive"
    it.learned()
    it.application.proposer.before_return = lambda: [  # type: ignore[assignment]
        it.studio.add_prediction({"task": n, "model_version": version, "score": 0.5, "result": []})
        for n in (1, 2)
        if version not in it.versions(n)
    ]
    assert it.work()[0]["there"] == 2
    assert [it.versions(n).count(version) for n in (1, 2)] == [1, 1]


def test_what_label_studio_waits_for_is_not_pushed_as_well(stage: Callable[..., Stage]) -> None:
    it = stage(tasks=3)
    it.learned()
    predict = it.pusher._predict
    made = predict._answer
    seen: list[dict[str, Any]] = []

    def meanwhile(*args: Any) -> list[Any]:
        answer = made(*args)
        seen.append(it.work()[0])  # the push runs between our answer and Label Studio's storing of it
        return answer

    predict._answer = meanwhile  # type: ignore[method-assign]
    it.http.post("/predict", json=predict_body([it.studio.tasks[n] for n in (1, 2)]))
    assert (seen[0]["pushed"], seen[0]["there"]) == (1, 2) and [len(it.versions(n)) for n in (1, 2, 3)] == [0, 0, 1]
    version = seen[0]["version"]
    assert predict.is_asked_for(SCOPE, {"id": 1}, version), "Label Studio may not have stored it yet"
    assert not predict.is_asked_for(SCOPE, {"id": 1}, "another version")


def test_what_is_pushed_while_label_studio_prepares_its_request_is_not_stored_again(
    stage: Callable[..., Stage],
) -> None:
    """It looks at what it holds, then writes a request of 1,000 tasks for a quarter of a minute (measured)."""
    it = stage(tasks=3)
    prepared = [it.studio.tasks[n] for n in (1, 2, 3)]
    it.learned()
    it.work()
    version = it.versions(1)[0]
    for body in (prepared, prepared[:1]):
        assert it.http.post("/predict", json=predict_body(body)).json["results"] == [[]] * len(body)
    it.studio.predictions = {n: p for n, p in it.studio.predictions.items() if p["task"] != 2}
    answers = it.http.post("/predict", json=predict_body(prepared)).json["results"]
    assert answers[0] == answers[2] == [] and answers[1]["model_version"] == version, "somebody deleted it there"
    it.studio.down = True
    assert all(it.http.post("/predict", json=predict_body(prepared)).json["results"]), "what is not known is answered"
    it.studio.down = False
    it.application.proposer.generation += 1
    newer = it.http.post("/predict", json=predict_body(prepared)).json["results"]
    assert {answer["model_version"] for answer in newer} != {version}


def test_a_push_waits_for_corrections_that_wait_to_be_learned(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.learned()
    learn = it.application.store.add_job("learn", {"connection": "default", "project": "2", "correction_id": 1})
    (job,) = it.waiting()
    it.application.store.finish_job(job.id, state="cancelled")
    assert "postponed" in it.pusher.run(job, lambda _f, _m: None) and len(it.waiting()) == 1
    it.application.store.finish_job(learn.id, state="cancelled")
    assert it.work()[0]["pushed"] == 4


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_correction_waits_for_one_task_of_a_push_and_the_rest_comes_later(
    stage: Callable[..., Stage], handed_over: bool
) -> None:
    it = stage(tasks=4, batches="push")
    if handed_over:
        assert it.pusher._queue.hand_over(SCOPE, ["1", "2", "3", "4"])
    else:
        it.learned()
    (push,) = it.waiting()
    it.application.store.finish_job(push.id, state="cancelled")
    # While the first task is predicted, an annotator of another project submits.
    learn: list[Job] = []
    it.application.proposer.before_return = lambda: (  # type: ignore[assignment]
        learn or learn.append(it.application.store.add_job("learn", {"connection": "default", "project": "9"}))
    )
    done = it.pusher.run(push, lambda _f, _m: None)
    assert (done["pushed"], done["left"]) == (1, 3)
    (rest,) = it.waiting()
    assert rest.payload.get("tasks") == (["2", "3", "4"] if handed_over else None)
    it.application.store.finish_job(learn[0].id, state="cancelled")
    it.work()
    assert [len(it.versions(n)) for n in (1, 2, 3, 4)] == [1, 1, 1, 1]


def test_tasks_handed_over_are_all_predicted_where_a_token_lands_in_between(stage: Callable[..., Stage]) -> None:
    it = stage(tasks=6, batches="push")
    assert it.pusher._queue.hand_over(SCOPE, ["3", "4", "5", "6"])
    (push,) = it.waiting()
    it.application.store.finish_job(push.id, state="cancelled")
    landed: list[int] = []

    def land() -> None:  # while the second task is predicted
        landed.append(len(landed))
        if len(landed) == 2:
            it.application.proposer.generation += 1

    it.application.proposer.before_return = land  # type: ignore[assignment]
    done = it.pusher.run(push, lambda _f, _m: None)
    assert (done["pushed"], done["left"]) == (1, 3)
    assert [job.payload.get("tasks") for job in it.waiting() if job.payload.get("tasks")] == [["4", "5", "6"]]
    it.work()
    assert all(it.versions(n) for n in (3, 4, 5, 6))


def test_uncertainty_sampling_is_given_the_title_it_sorts_by(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.studio.project |= {"sampling": "Uncertainty sampling", "model_version": "OVAM"}
    other = {"id": 2, "title": "other", "model_version": "other-1"}
    it.studio.backends = [
        {"id": 1, "url": "http://127.0.0.1:9090", "project": 2, "title": "OVAM", "model_version": "ovam-drawn-0"},
        other,
    ]
    it.learned()
    (done,) = it.work()
    assert it.studio.project["model_version"] == it.studio.backends[0]["title"] == done["version"]
    assert it.studio.backends[1]["title"] == "other"
    # What Label Studio then does: the lowest score among predictions of the project's version.
    scores = [p["score"] for p in it.studio.predictions.values() if p["model_version"] == done["version"]]
    assert len(scores) == 4 and all(0 <= s <= 1 for s in scores)


def test_the_most_doubtful_tasks_are_pushed_first(stage: Callable[..., Stage]) -> None:
    """Uncertainty sampling then looks at tasks of the new version only, which are those that were pushed."""
    it = stage(tasks=5)
    backend = {"id": 1, "url": "http://127.0.0.1:9090", "project": 2, "title": "ovam-old", "model_version": "ovam-old"}
    it.studio.backends = [backend]
    it.studio.project |= {"sampling": "Uncertainty sampling", "model_version": "ovam-old"}
    for number, score in ((1, 0.9), (2, 0.1), (3, 0.5), (4, 0.2)):  # the fifth has none
        it.studio.add_prediction({"task": number, "model_version": "ovam-old", "score": score, "result": []})
    it.application.store.put_project_options(SCOPE, {"push": 2})
    it.learned()
    (done,) = it.work()
    new = done["version"]
    assert [n for n in range(1, 6) if new in it.versions(n)] == [2, 4] and it.studio.project["model_version"] == new


def test_only_our_own_old_predictions_are_deleted(stage: Callable[..., Stage]) -> None:
    it = stage(tasks=1)
    for version in ("ovam-old", "ovam-young", "theirs"):
        it.studio.add_prediction({"task": 1, "model_version": version, "score": 0.5, "result": []})
    old = (datetime.now(UTC) - PRUNE_AFTER - timedelta(hours=1)).isoformat()
    young = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for prediction, at in zip(it.studio.predictions.values(), (old, young, old), strict=True):
        prediction["created_at"] = at
    it.learned()
    assert it.work()[0]["pruned"] == 1
    assert it.versions(1) == ["ovam-young", "theirs", "ovam-drawn-1-2-exclusive"]


def test_a_batch_too_long_is_handed_over_where_configured_so(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = TASKS + 5
    it = stage(tasks=count, batches="push", predict_budget=1e-9)
    tasks = [it.studio.tasks[n] for n in range(1, count + 1)]
    answer = it.http.post("/predict", json=predict_body(tasks)).json["results"]
    assert len(answer) == count and answer[0]["result"] and answer[1:] == [[]] * (count - 1)
    it.http.post("/predict", json=predict_body(tasks))
    assert len(it.waiting()) == 1, "tasks that wait already are not queued again"
    it.studio.delete_task(2)  # meanwhile
    first, second = it.work()
    assert (first["pushed"], first["left"], second["pushed"], second["left"]) == (TASKS - 1, 4, 4, 0)
    assert [len(it.versions(n)) for n in range(3, count + 1)] == [1] * (count - 2)
    plain = stage(tasks=3, predict_budget=1e-9)
    assert len(plain.http.post("/predict", json=predict_body([task(n) for n in (1, 2, 3)])).json["results"]) == 1


def test_pushing_can_be_off_and_an_unknown_label_studio_gets_nothing(
    stage: Callable[..., Stage], application: DrawnApplication
) -> None:
    it = stage()
    it.application.store.put_project_options(SCOPE, {"push": 0})
    it.learned()
    assert it.waiting() == []
    queue = PushQueue(application.settings, application.store, application.tool.connections)
    assert queue.later(SCOPE) is None and not queue.hand_over(SCOPE, ["1"])


def test_the_twin_of_a_request_under_way_is_answered_with_nothing(
    client: Any, application: DrawnApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data manager asks twice at once for a task that is opened; Label Studio would store both answers."""
    monkeypatch.setattr(asked, "STORING_SECONDS", 0.0)
    entered, joined, free = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        free.wait(60)

    application.proposer.before_return = wait
    wait_for_first = asked.Asked.wait_for_first
    monkeypatch.setattr(asked.Asked, "wait_for_first", lambda me, key: (joined.set(), wait_for_first(me, key))[1])
    answers: dict[str, Any] = {}

    def ask(name: str) -> None:
        made = client.application.test_client().post("/predict", json=predict_body([task(1)]))
        answers[name] = made.json["results"]

    first = threading.Thread(target=ask, args=("first",))
    first.start()
    assert entered.wait(60)
    second = threading.Thread(target=ask, args=("second",))
    second.start()
    assert joined.wait(60)
    free.set()
    first.join(60)
    second.join(60)
    assert answers["first"][0]["result"] and answers["second"] == [[]] and application.proposer.calls == 1
    ask("third")  # later, it is no twin
    assert answers["third"] == answers["first"]


def test_the_late_twin_of_a_request_that_was_answered_and_stored_is_answered_with_nothing(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked at what Label Studio holds before either asked here."""
    monkeypatch.setattr(asked, "STORING_SECONDS", 0.0)
    it = stage(tasks=3)

    def ask() -> Any:
        return it.http.post("/predict", json=predict_body([it.studio.tasks[1]])).json["results"][0]

    first = ask()
    assert first["result"] and ask() == first, "it was not stored: somebody else asks"
    it.studio.add_prediction({"task": 1, **first})
    assert ask() == []
    monkeypatch.setattr(asked, "LATE_SECONDS", 0.0)
    assert ask() == first, "later, it is no twin"


def test_a_class_whose_proposals_hurt_proposes_no_more(stage: Callable[..., Stage]) -> None:
    it = stage(tasks=8)

    def labels(made: Any) -> list[str]:
        return [region["value"]["brushlabels"][0] for region in made["result"]]

    def ask(number: int) -> Any:
        return it.http.post("/predict", json=predict_body([it.studio.tasks[number]])).json["results"][0]

    before = it.http.post("/setup", json=captured("setup")).json["model_version"]
    it.studio.deliver = lambda event: it.http.post("/webhook", json=event) and None
    for number in range(1, 7):
        made = ask(number)
        parent = it.studio.add_prediction({"task": number, **made})
        kept = [r | {"origin": "prediction"} for r in made["result"] if r["value"]["brushlabels"] == ["bar"]]
        assert labels(made) == ["disc", "bar"]
        it.studio.submit(number, [*kept, brush("disc", half(), "mine")], parent_prediction=parent, lead_time=9.0)
    assert labels(ask(7)) == ["bar"]
    after = it.http.post("/setup", json=captured("setup")).json["model_version"]
    assert after != before, "Label Studio asks again for what it has"
    quiet = it.application.store.get_note(SCOPE, "quiet classes")
    assert list(quiet) == ["disc"] and quiet["disc"]["version"] is None


def test_iou_of_proposal_and_submission_is_measured_when_a_correction_was_learned(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.studio.deliver = lambda event: it.http.post("/webhook", json=event) and None
    made = it.http.post("/predict", json=predict_body([it.studio.tasks[1]])).json["results"][0]
    parent = it.studio.add_prediction({"task": 1, **made})
    disc = made["result"][0]
    changed = brush("disc", half(), disc["id"], origin="prediction-changed")
    it.studio.submit(1, [changed], parent_prediction=parent, lead_time=9.0)
    store = it.application.store
    assert {o.label: o.iou for o in store.list_outcomes(SCOPE)} == {"disc": None, "bar": None}
    (correction,) = store.list_corrections(SCOPE)
    image, _ = it.application.tool.image_of(correction)
    truths, _ = it.application.tool.truths_of(correction, image)
    store.put_correction_masks([CorrectionMask(correction.id, t.label, t.kind, t.mask, t.ignore) for t in truths])
    (job,) = store.list_jobs(kinds=("learn",))
    for listener in it.application.listeners:
        listener(job, [])
    found = {o.label: o for o in store.list_outcomes(SCOPE)}
    # Every third column of 32 was proposed, of which 6 lie in the half that was drawn.
    assert found["disc"].iou == pytest.approx(6 / (16 + 11 - 6)) and found["bar"].iou == 0.0
    assert (found["disc"].changed, found["bar"].deleted, found["disc"].lead_time) == (1, 1, 9.0)
