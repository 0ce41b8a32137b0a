"""Durable jobs: woken at once, retried with back-off, failed with a sentence, cancelled, queued again after SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from colour_model import ColourModel, box, scene

from backends.contract import Progress
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.errors import CancelledError, FetchError, OvamError, StorageFullError
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.jobs import worker as worker_module
from ovam_labeler.jobs.local import LocalJobs
from ovam_labeler.settings import Settings
from token_store.contract import StoreFullError, TokenStore
from token_store.entities import CorrectionMask, Job, NewCorrection, Scope

HERE = Path(__file__).parent
SCOPE = Scope("default", "1")


class Handler:
    """Does what a test says."""

    def __init__(self) -> None:
        self.action: Callable[[Job, Progress], Mapping[str, Any]] = lambda job, progress: {"seen": job.payload}
        self.runs: list[tuple[int, float]] = []
        self.given_up: list[str] = []

    def run(self, job: Job, progress: Progress) -> Mapping[str, Any]:
        self.runs.append((job.id, time.monotonic()))
        return self.action(job, progress)

    def gave_up(self, job: Job, sentence: str) -> None:
        self.given_up.append(sentence)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def store(app: OvamApplication) -> TokenStore:
    return app.store


@pytest.fixture
def jobs(store: TokenStore, handler: Handler, tmp_path: Path) -> Iterator[LocalJobs]:
    made = LocalJobs(store, {"work": handler}, tmp_path / "workers", poll_seconds=0.05, back_off=(0.05, 0.05))
    yield made
    assert made.stop(20)


def wait(store: TokenStore, job_id: int, *states: str) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = store.get_job(job_id)
        if job.state in states:
            return job
        time.sleep(0.02)
    raise AssertionError(f"job {job_id} is still {store.get_job(job_id)}")


def test_runs_in_order_and_keeps_the_result(jobs: LocalJobs, store: TokenStore, handler: Handler) -> None:
    added = [store.add_job("work", {"n": n}) for n in range(3)]
    other = store.add_job("unknown kind", {})
    jobs.start()
    jobs.start()
    done = [wait(store, job.id, "done") for job in added]
    assert [job.result for job in done] == [{"seen": {"n": n}} for n in range(3)]
    assert [run[0] for run in handler.runs] == [job.id for job in added]
    assert store.get_job(other.id).state == "queued"


def test_notify_wakes_at_once(store: TokenStore, handler: Handler, tmp_path: Path) -> None:
    jobs = LocalJobs(store, {"work": handler}, tmp_path / "workers", poll_seconds=300)
    jobs.start()
    time.sleep(0.3)
    job = store.add_job("work", {})
    jobs.notify()
    wait(store, job.id, "done")
    assert jobs.stop(20)


@pytest.mark.parametrize("error", [FetchError("401."), StorageFullError("Full."), StoreFullError("Full.")])
def test_what_time_may_heal_is_tried_again(
    jobs: LocalJobs, store: TokenStore, handler: Handler, error: Exception
) -> None:
    def action(job: Job, progress: Progress) -> Mapping[str, Any]:
        if job.attempts < 3:
            raise error
        return {"attempts": job.attempts}

    handler.action = action
    job = store.add_job("work", {})
    jobs.start()
    assert wait(store, job.id, "done").result == {"attempts": 3}
    assert handler.given_up == []


def test_a_waiting_retry_holds_nothing_up(store: TokenStore, handler: Handler, tmp_path: Path) -> None:
    def action(job: Job, progress: Progress) -> Mapping[str, Any]:
        if job.payload.get("unreachable"):
            raise FetchError("Unreachable.")
        return {}

    handler.action = action
    jobs = LocalJobs(store, {"work": handler}, tmp_path / "workers", poll_seconds=0.05, back_off=(3600.0,))
    first = store.add_job("work", {"unreachable": True})
    behind = store.add_job("work", {})
    jobs.start()
    wait(store, behind.id, "done")
    waiting = store.get_job(first.id)
    assert (waiting.state, waiting.message) == ("queued", "Unreachable.")
    assert (waiting.run_after - waiting.created_at).total_seconds() > 3000
    assert jobs.stop(20)


def test_failure_after_the_last_attempt_keeps_the_sentence(
    jobs: LocalJobs, store: TokenStore, handler: Handler
) -> None:
    def action(job: Job, progress: Progress) -> Mapping[str, Any]:
        raise FetchError("The image could not be fetched.")

    handler.action = action
    job = store.add_job("work", {})
    jobs.start()
    failed = wait(store, job.id, "failed")
    assert failed.attempts == 3
    assert failed.message == "The image could not be fetched. Given up after 3 attempts."
    assert handler.given_up == [failed.message]


def test_other_errors_fail_at_once_and_the_worker_lives(jobs: LocalJobs, store: TokenStore, handler: Handler) -> None:
    errors: list[Exception] = [OvamError("No such tool."), ZeroDivisionError("secret detail")]

    def action(job: Job, progress: Progress) -> Mapping[str, Any]:
        if errors:
            raise errors.pop(0)
        return {}

    handler.action = action
    added = [store.add_job("work", {}) for _ in range(3)]
    jobs.start()
    assert wait(store, added[0].id, "failed").message == "No such tool."
    internal = wait(store, added[1].id, "failed").message
    assert "internal error" in internal and "secret" not in internal
    wait(store, added[2].id, "done")


def test_progress_is_throttled_and_clamped(
    jobs: LocalJobs, store: TokenStore, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []
    original = store.update_job

    def update(job_id: int, *, progress: float | None = None, message: str | None = None) -> None:
        written.append(progress if progress is not None else -1)
        original(job_id, progress=progress, message=message)

    monkeypatch.setattr(store, "update_job", update)

    def action(job: Job, progress: Progress) -> Mapping[str, Any]:
        for k in range(1000):
            progress(k / 500, "working")
        return {}

    handler.action = action
    job = store.add_job("work", {})
    jobs.start()
    wait(store, job.id, "done")
    assert 1 <= len(written) <= 20
    assert all(0 <= value <= 1 for value in written)


def test_cancelling_stops_a_running_job(
    jobs: LocalJobs, store: TokenStore, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "PROGRESS_SECONDS", 0.01)
    raised = threading.Event()

    def action(job: Job, progress: Progress) -> Mapping[str, Any]:
        try:
            while True:
                progress(0.5, "working")
                time.sleep(0.02)
        except CancelledError:
            raised.set()
            raise

    handler.action = action
    job = store.add_job("work", {})
    jobs.start()
    wait(store, job.id, "running")
    store.finish_job(job.id, state="cancelled", message="by the user")
    assert raised.wait(20)
    assert store.get_job(job.id).message == "by the user"
    assert handler.given_up == []


def test_full_disk_at_the_end_of_a_job_is_waited_out(
    jobs: LocalJobs, store: TokenStore, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs._runner._store_seconds = 0.05
    refusals = [StoreFullError("Full."), StoreFullError("Full.")]
    original = store.finish_job

    def finish(*args: Any, **kwargs: Any) -> Job:
        if refusals:
            raise refusals.pop()
        return original(*args, **kwargs)

    monkeypatch.setattr(store, "finish_job", finish)
    job = store.add_job("work", {})
    jobs.start()
    assert wait(store, job.id, "done").result == {"seen": {}}
    assert len(handler.runs) == 1


def test_live_workers_jobs_are_left_alone(jobs: LocalJobs, store: TokenStore, handler: Handler, tmp_path: Path) -> None:
    hold = threading.Event()
    handler.action = lambda job, progress: {"held": hold.wait(30)}
    job = store.add_job("work", {})
    jobs.start()
    wait(store, job.id, "running")
    second = LocalJobs(store, {"work": Handler()}, tmp_path / "workers", poll_seconds=0.05)
    second.start()
    time.sleep(0.3)
    assert store.get_job(job.id).state == "running" and store.get_job(job.id).attempts == 1
    hold.set()
    assert wait(store, job.id, "done").result == {"held": True}
    assert second.stop(20)


def test_a_learned_correction_tells_listeners(app: OvamApplication) -> None:
    told: list[list[str]] = []

    def listener(job: Job, results: list[Any]) -> None:
        told.append([r.label for r in results])
        raise RuntimeError("a listener's own trouble")

    app.on_learned(listener)
    image = load_image(encode_png(scene(((210, 200, 20), (8, 8, 32, 32)))))
    app.decoders["direct"].keep(image)  # type: ignore[attr-defined]
    payload = {"tool": "direct", "image_sha256": image.sha256}
    correction, job, _ = app.store.add_correction(NewCorrection(SCOPE, "1", "t", "7", "ref", payload, ("x",)))
    mask = box(8, 8, 32, 32)
    app.store.put_correction_masks([CorrectionMask(correction.id, "x", "positive", mask, ~mask & mask)])
    app.start_worker()
    assert job is not None
    done = wait(app.store, job.id, "done")
    assert done.result["learned"][0]["label"] == "x" and done.result["learned"][0]["active"]
    assert told == [["x"]]


def test_unfetchable_correction_fails_with_its_job(app: OvamApplication) -> None:
    app.jobs = LocalJobs(
        app.store,
        app.jobs._handlers,
        app.settings.data_dir / "w",
        poll_seconds=0.05,
        back_off=(0.05,),  # type: ignore[attr-defined]
    )
    payload = {"tool": "direct", "image_sha256": "0" * 64}
    correction, job, _ = app.store.add_correction(NewCorrection(SCOPE, "1", "t", "7", "ref", payload, ("x",)))
    app.start_worker()
    assert job is not None
    message = wait(app.store, job.id, "failed").message
    assert "is gone" in message
    stored = app.store.get_correction(correction.id)
    assert (stored.state, stored.note) == ("failed", message)


@pytest.mark.parametrize("when", ["queued", "running"])
def test_acknowledged_correction_is_learned_after_sigkill(settings: Settings, when: str) -> None:
    killed = subprocess.run(
        [sys.executable, str(HERE / "killed_process.py"), str(settings.data_dir), when],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[2])},
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL
    with build_application(settings, loader=ColourModel().load) as app:
        (job,) = app.store.list_jobs()
        assert job.state == when
        app.start_worker()
        assert wait(app.store, job.id, "done").attempts == (2 if when == "running" else 1)
        assert app.store.get_version(SCOPE, "x", "active").metrics["train_iou"] > 0.9
        assert app.store.list_corrections(SCOPE)[0].state == "learned"
