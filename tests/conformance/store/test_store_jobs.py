"""Contract of the token store: jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from token_store import open_store
from token_store.contract import InvalidValueError, NotFoundError, StoreError, TokenStore


def test_life_of_a_job(store: TokenStore) -> None:
    assert store.claim_job("w1") is None
    first = store.add_job("learn", {"correction_id": 1})
    second = store.add_job("read", {"image": "x"})
    claimed = store.claim_job("w1")
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.attempts, claimed.worker) == (first.id, "running", 1, "w1")
    assert claimed.started_at is not None
    store.update_job(first.id, progress=0.25, message="epoch 10 of 40")
    assert (store.get_job(first.id).progress, store.get_job(first.id).message) == (0.25, "epoch 10 of 40")
    store.update_job(first.id, progress=0.5)
    assert store.get_job(first.id).message == "epoch 10 of 40"
    done = store.finish_job(first.id, state="done", message="learned", result={"version": 1})
    assert (done.state, done.progress, done.result) == ("done", 1.0, {"version": 1})
    assert done.finished_at is not None
    store.update_job(first.id, progress=0.1, message="late")
    assert store.get_job(first.id) == done
    assert store.claim_job("w1", kinds=["learn"]) is None
    taken = store.claim_job("w2", kinds=["learn", "read"])
    assert taken is not None
    assert taken.id == second.id
    assert store.finish_job(second.id, state="failed", message="no image").progress == 0
    assert [j.id for j in store.list_jobs()] == [second.id, first.id]
    assert [j.id for j in store.list_jobs(states=["done"])] == [first.id]
    assert [j.id for j in store.list_jobs(kinds=["read"], limit=5)] == [second.id]
    assert len(store.list_jobs(limit=1)) == 1


def test_wrong_moves_are_refused(store: TokenStore) -> None:
    job = store.add_job("learn", {})
    with pytest.raises(StoreError, match="queued"):
        store.finish_job(job.id, state="done")
    with pytest.raises(StoreError, match="queued"):
        store.retry_job(job.id, run_after=datetime.now(UTC), message="")
    assert store.finish_job(job.id, state="cancelled").state == "cancelled"
    with pytest.raises(StoreError, match="cancelled"):
        store.finish_job(job.id, state="done")
    with pytest.raises(InvalidValueError, match="allowed"):
        store.finish_job(job.id, state="running")
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidValueError, match="progress"):
            store.update_job(job.id, progress=progress)
    with pytest.raises(InvalidValueError, match="timezone"):
        store.add_job("learn", {}, run_after=datetime(2030, 1, 1))
    with pytest.raises(InvalidValueError, match="payload"):
        store.add_job("learn", {"mask": object()})
    for call in (store.get_job, store.update_job):
        with pytest.raises(NotFoundError):
            call(99)


def test_retry_schedule(store: TokenStore) -> None:
    later = store.add_job("learn", {}, run_after=datetime.now(UTC) + timedelta(hours=1))
    assert store.claim_job("w") is None
    job = store.add_job("learn", {})
    store.claim_job("w")
    again = store.retry_job(job.id, run_after=datetime.now(UTC) + timedelta(hours=1), message="no network")
    assert (again.state, again.message, again.attempts, again.worker) == ("queued", "no network", 1, "")
    assert store.claim_job("w") is None
    due = store.add_job("learn", {})
    claimed = store.claim_job("w")
    assert claimed is not None
    assert claimed.id == due.id
    store.retry_job(due.id, run_after=datetime.now(UTC) - timedelta(seconds=1), message="now")
    claimed = store.claim_job("w")
    assert claimed is not None
    assert (claimed.id, claimed.attempts) == (due.id, 2)
    assert store.get_job(later.id).state == "queued"


def test_interrupted_jobs_are_queued_again(store: TokenStore) -> None:
    jobs = [store.add_job("learn", {"n": n}) for n in range(4)]
    for worker in ("a", "b", "a"):
        store.claim_job(worker)
    store.finish_job(jobs[2].id, state="done")
    assert [j.id for j in store.requeue_interrupted("a")] == [jobs[0].id]
    assert store.get_job(jobs[1].id).state == "running"
    (back,) = store.requeue_interrupted()
    assert (back.id, back.state, back.attempts) == (jobs[1].id, "queued", 1)
    assert store.requeue_interrupted() == []
    claimed = store.claim_job("c")
    assert claimed is not None
    assert (claimed.id, claimed.attempts) == (jobs[0].id, 2)


def test_each_job_goes_to_one_worker(store: TokenStore, url: str) -> None:
    jobs = {store.add_job("learn", {"n": n}).id for n in range(40)}
    second = open_store(url)

    def work(n: int) -> list[int]:
        taken = []
        while (job := (store, second)[n % 2].claim_job(f"w{n}")) is not None:
            taken.append(job.id)
        return taken

    with ThreadPoolExecutor(6) as pool:
        taken = [job for part in pool.map(work, range(6)) for job in part]
    second.close()
    assert len(taken) == 40
    assert set(taken) == jobs
    assert {job.attempts for job in store.list_jobs()} == {1}
