"""The token store's contract, run over every implementation.

Set ``OVAM_TEST_POSTGRES_URL=postgresql://user@host/name`` (a user who may create databases) to run it on PostgreSQL too.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url

from token_store import open_store
from token_store.contract import (
    InvalidTokenError,
    InvalidValueError,
    NotFoundError,
    StoreError,
    TokenStore,
)
from token_store.entities import (
    CorrectionMask,
    ImageRecord,
    NewCorrection,
    NewTokenVersion,
    Scope,
    ServedPrediction,
)

POSTGRES = os.environ.get("OVAM_TEST_POSTGRES_URL")
PROJECT = Scope("default", "1")
OTHER = Scope("second", "1")


def sqlite_url(folder: Path) -> Iterator[str]:
    yield str(folder / "store.sqlite3")


def postgres_url(_folder: Path) -> Iterator[str]:
    assert POSTGRES is not None
    name = f"ovam_{uuid.uuid4().hex}"
    server = create_engine(make_url(POSTGRES).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    server.dispose()


IMPLEMENTATIONS: dict[str, Callable[[Path], Iterator[str]]] = {"sqlite": sqlite_url}
if POSTGRES:
    IMPLEMENTATIONS["postgresql"] = postgres_url


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from IMPLEMENTATIONS[request.param](tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[TokenStore]:
    opened = open_store(url)
    yield opened
    opened.close()


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


def test_implements_contract(store: TokenStore) -> None:
    assert isinstance(store, TokenStore)
    assert store.check() == []


class TestTokens:
    def test_versions_are_numbered_and_come_back_whole(self, store: TokenStore, url: str) -> None:
        first = store.add_version(PROJECT, "cat", version(1), aliases=["active"])
        second = store.add_version(
            PROJECT, "cat", version(2, source_corrections=(9, 4), parent_version=1), aliases=["active", "best"]
        )
        assert (first.number, first.aliases) == (1, ("active",))
        assert (second.number, second.aliases, second.parent_version) == (2, ("active", "best"), 1)
        assert second.source_corrections == (9, 4)
        assert second.created_at.tzinfo is not None
        assert abs(second.created_at - datetime.now(UTC)) < timedelta(minutes=1)
        again = open_store(url)
        read = again.get_version(PROJECT, "cat", 1)
        again.close()
        assert read.embedding.dtype == np.float32
        np.testing.assert_array_equal(read.embedding, version(1).embedding)
        assert read.aliases == ()
        assert (read.fingerprint, read.recipe, read.metrics) == (
            version().fingerprint,
            version().recipe,
            version().metrics,
        )
        assert (read.sha256, read.created_at, read.state) == (first.sha256, first.created_at, "unproven")
        assert [v.number for v in store.list_versions(PROJECT, "cat")] == [1, 2]
        assert store.list_versions(OTHER, "cat") == []

    @pytest.mark.parametrize(
        "name",
        [
            "defect_07",
            " two  spaces ",
            "x" * 500,
            "🦊" * 500,
            "é",
            "e\u0301",
            "100%_'\";--",
            "CAT",
            "cat",
            "猫/\\猫",
            "a\nb",
        ],
    )
    def test_class_names_are_kept_verbatim(self, store: TokenStore, name: str) -> None:
        store.add_version(PROJECT, "neighbour", version(), aliases=["active"])
        assert store.add_version(PROJECT, name, version(), aliases=["active"]).class_name == name
        assert store.get_version(PROJECT, name, "active").class_name == name
        assert list(store.find_active(PROJECT, [name])) == [name]
        assert name in [token.class_name for token in store.list_tokens()]

    def test_names_that_look_alike_are_different(self, store: TokenStore) -> None:
        for name in ("cat", "CAT", "cat ", "é", "e\u0301"):
            assert store.add_version(PROJECT, name, version()).number == 1

    @pytest.mark.parametrize(
        "embedding",
        [
            np.ones((1, 3), np.float32),
            np.ones((2, 0), np.float32),
            np.ones(6, np.float32),
            np.ones((2, 3, 1), np.float32),
            np.ones((2, 3), np.float64),
            np.ones((2, 3), np.float16),
            np.array([[1, np.nan], [1, 1]], np.float32),
            np.array([[1, np.inf], [1, 1]], np.float32),
            [[1.0, 2.0], [1.0, 2.0]],
        ],
    )
    def test_wrong_embedding_is_refused(self, store: TokenStore, embedding: Any) -> None:
        with pytest.raises(InvalidTokenError, match="embedding"):
            store.add_version(PROJECT, "cat", version(embedding=embedding))
        assert store.list_tokens() == []

    @pytest.mark.parametrize(
        ("name", "changes", "message"),
        [
            ("", {}, "class_name"),
            ("  ", {}, "class_name"),
            ("x" * 501, {}, "class_name"),
            ("a\0b", {}, "class_name"),
            ("\ud800", {}, "class_name"),
            ("cat", {"state": "good"}, "state.*unproven, proven"),
            ("cat", {"metrics": {"loss": float("nan")}}, "metrics"),
            ("cat", {"metrics": {"loss": {1, 2}}}, "metrics"),
            ("cat", {"fingerprint": {"model": "tiny"}}, "fingerprint.space"),
        ],
    )
    def test_wrong_metadata_is_refused(
        self, store: TokenStore, name: str, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidTokenError, match=message):
            store.add_version(PROJECT, name, version(**changes))
        assert store.list_tokens() == []

    def test_numpy_numbers_are_plain_afterwards(self, store: TokenStore) -> None:
        metrics = {"iou": np.float32(0.5), "losses": np.array([1.0, 2.0]), "n": np.int64(3), "ok": np.bool_(True)}
        stored = store.add_version(PROJECT, "cat", version(metrics=metrics)).metrics
        assert stored == {"iou": 0.5, "losses": [1.0, 2.0], "n": 3, "ok": True}

    def test_active_of_project_wins_over_global(self, store: TokenStore) -> None:
        store.add_version(Scope.everywhere(), "cat", version(1), aliases=["active"])
        store.add_version(Scope.everywhere(), "dog", version(2), aliases=["active"])
        store.add_version(PROJECT, "cat", version(3), aliases=["active"])
        store.add_version(PROJECT, "inactive", version(4))
        store.add_version(OTHER, "fox", version(5), aliases=["active"])
        found = store.find_active(PROJECT, ["dog", "cat", "inactive", "fox", "unknown", "dog"])
        assert {name: found[name].scope for name in found} == {"dog": Scope.everywhere(), "cat": PROJECT}
        assert found["cat"].embedding[0, 0] == 3
        assert store.find_active(PROJECT, []) == {}
        assert len(store.find_active(PROJECT, [f"n{i}" for i in range(1500)] + ["cat"])) == 1

    def test_unknown_is_not_found(self, store: TokenStore) -> None:
        store.add_version(PROJECT, "cat", version())
        for asked in (2, 0, -1, "active"):
            with pytest.raises(NotFoundError, match="cat"):
                store.get_version(PROJECT, "cat", asked)
        with pytest.raises(NotFoundError):
            store.get_version(OTHER, "cat", 1)
        with pytest.raises(NotFoundError):
            store.set_alias(PROJECT, "cat", "active", 2, who="w", why="y")
        with pytest.raises(NotFoundError):
            store.set_alias(PROJECT, "dog", "active", 1, who="w", why="y")
        with pytest.raises(NotFoundError):
            store.set_version_state(PROJECT, "cat", 2, "proven", who="w", why="y")

    def test_what_no_database_can_hold_is_refused_not_crashed(self, store: TokenStore) -> None:
        with pytest.raises(StoreError):
            store.get_job(10**30)
        with pytest.raises(StoreError):
            store.find_active(PROJECT, ["\ud800"])

    def test_alias_moves_rolls_back_and_goes(self, store: TokenStore) -> None:
        for value in (1, 2, 3):
            store.add_version(PROJECT, "cat", version(value), aliases=["active"])
        store.set_alias(PROJECT, "cat", "active", 1, who="ann", why="3 was worse")
        assert store.get_version(PROJECT, "cat", "active").number == 1
        store.set_alias(PROJECT, "cat", "active", None, who="ann", why="off")
        store.set_alias(PROJECT, "cat", "active", None, who="ann", why="off again")
        with pytest.raises(NotFoundError):
            store.get_version(PROJECT, "cat", "active")
        entries = store.audit()
        assert [(e["what"], e["why"], e["details"]["from"], e["details"]["to"]) for e in entries[:2]] == [
            ("alias.remove", "off", 1, None),
            ("alias.set", "3 was worse", 3, 1),
        ]
        assert (entries[0]["who"], entries[0]["details"]["class_name"]) == ("ann", "cat")
        assert len(entries) == 5
        assert len(store.audit(limit=2)) == 2
        with pytest.raises(InvalidValueError, match="alias"):
            store.set_alias(PROJECT, "cat", "12", 1, who="ann", why="")

    def test_state_changes_and_metrics_merge(self, store: TokenStore) -> None:
        store.add_version(PROJECT, "cat", version())
        changed = store.set_version_state(PROJECT, "cat", 1, "proven", who="gate", why="+3", metrics={"gate_iou": 0.7})
        assert changed.state == "proven"
        assert changed.metrics == {"train_iou": 0.5, "losses": [1.0, 0.5], "gate_iou": 0.7}
        assert store.get_version(PROJECT, "cat", 1).metrics == changed.metrics
        entry = store.audit()[0]
        assert (entry["what"], entry["who"], entry["details"]["from"], entry["details"]["to"]) == (
            "version.state",
            "gate",
            "unproven",
            "proven",
        )
        with pytest.raises(InvalidTokenError, match="allowed"):
            store.set_version_state(PROJECT, "cat", 1, "great", who="w", why="y")

    def test_list_tokens(self, store: TokenStore) -> None:
        store.add_version(PROJECT, "Étoile_1", version(), aliases=["active"])
        store.add_version(PROJECT, "Étoile_1", version(), aliases=["best"])
        store.add_version(OTHER, "etoileX1", version())
        (token,) = store.list_tokens(PROJECT)
        assert (token.versions, token.aliases) == (2, {"active": 1, "best": 2})
        assert [t.class_name for t in store.list_tokens(name_contains="étoile")] == ["Étoile_1"]
        assert [t.class_name for t in store.list_tokens(name_contains="E_1")] == ["Étoile_1"]
        assert store.list_tokens(name_contains="%") == []
        assert store.list_tokens(OTHER, "étoile") == []

    def test_threads_lose_no_number(self, store: TokenStore) -> None:
        with ThreadPoolExecutor(6) as pool:
            made = list(
                pool.map(lambda i: store.add_version(PROJECT, "cat", version(i), aliases=["active"]), range(60))
            )
        assert sorted(v.number for v in made) == list(range(1, 61))
        assert all(v.embedding[0, 0] == i for i, v in enumerate(made))
        stored = store.list_versions(PROJECT, "cat")
        assert [v.number for v in stored] == list(range(1, 61))
        assert [v.number for v in stored if "active" in v.aliases] == [60]


class TestCorrections:
    def test_stored_with_its_job(self, store: TokenStore) -> None:
        stored, job, fresh = store.add_correction(correction())
        assert fresh
        assert stored.state == "pending"
        assert stored == store.get_correction(stored.id)
        assert job is not None
        assert (job.kind, job.state, job.attempts) == ("learn", "queued", 0)
        assert job.payload == {
            "correction_id": stored.id,
            "connection": "default",
            "project": "1",
            "task_id": "3",
            "labels": ["cat", "chat à poil"],
        }
        assert store.claim_job("w") == store.get_job(job.id)

    def test_replay_is_not_fresh(self, store: TokenStore) -> None:
        first = store.add_correction(correction())
        replay = store.add_correction(correction(payload={"other": 1}))
        assert replay == (first[0], first[1], False)
        assert len(store.list_jobs()) == 1
        elsewhere = store.add_correction(correction(scope=OTHER))
        assert elsewhere[2]
        assert elsewhere[0].id != first[0].id

    def test_newer_replaces_older(self, store: TokenStore) -> None:
        old, old_job, _ = store.add_correction(correction())
        new, new_job, fresh = store.add_correction(correction(updated="2026-11-23T10:00:01.000000Z"))
        assert fresh
        assert old_job is not None
        assert new_job is not None
        assert store.get_correction(old.id).state == "retracted"
        assert str(new.id) in store.get_correction(old.id).note
        assert store.get_job(old_job.id).state == "cancelled"
        assert store.get_correction(new.id).state == "pending"
        claimed = store.claim_job("w")
        assert claimed is not None
        assert claimed.id == new_job.id
        assert store.audit()[0]["what"] == "correction.retracted"
        assert store.add_correction(correction())[2] is False

    def test_running_job_of_replaced_correction_is_left_to_its_worker(self, store: TokenStore) -> None:
        old, job, _ = store.add_correction(correction())
        store.claim_job("w")
        store.add_correction(correction(updated="2026-11-24T10:00:00Z"))
        assert job is not None
        assert store.get_job(job.id).state == "running"
        store.set_correction_state(old.id, "learned", note="too late", image_sha256="f" * 64)
        stored = store.get_correction(old.id)
        assert (stored.state, stored.image_sha256) == ("retracted", "f" * 64)
        assert stored.note != "too late"

    def test_late_older_event_does_not_replace_the_newer(self, store: TokenStore) -> None:
        new, _, _ = store.add_correction(correction(updated="2026-11-23T10:00:00.5Z"))
        old, job, fresh = store.add_correction(correction(updated="2026-11-23T11:00:00+02:00"))
        assert (old.state, job, fresh) == ("retracted", None, True)
        assert store.get_correction(new.id).state == "pending"

    def test_what_teaches_nothing_gets_no_job_but_replaces(self, store: TokenStore) -> None:
        taught, _, _ = store.add_correction(correction())
        stored, job, fresh = store.add_correction(correction(updated="2026-11-24T10:00:00Z", labels=()))
        assert (stored.state, job, fresh) == ("ignored", None, True)
        assert store.get_correction(taught.id).state == "retracted"
        unjobbed, job, _ = store.add_correction(correction("8"), job_kind=None)
        assert (unjobbed.state, job) == ("pending", None)

    def test_same_event_from_many_threads_is_fresh_once(self, store: TokenStore) -> None:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: store.add_correction(correction()), range(18)))
        assert sum(fresh for _, _, fresh in answers) == 1
        assert len({stored.id for stored, _, _ in answers}) == 1
        assert len(store.list_jobs()) == 1

    def test_listing(self, store: TokenStore) -> None:
        ids = [store.add_correction(correction(str(n), labels=(f"l{n % 2}", "all")))[0].id for n in range(4)]
        store.add_correction(correction("1", scope=OTHER))
        store.set_correction_state(ids[0], "learned", note="ok", image_sha256="a" * 64)
        store.set_correction_state(ids[1], "failed", note="no")
        assert [c.id for c in store.list_corrections(PROJECT)] == ids[::-1]
        assert [c.id for c in store.list_corrections(PROJECT, limit=2)] == [ids[3], ids[2]]
        assert [c.id for c in store.list_corrections(PROJECT, label="l0")] == [ids[2], ids[0]]
        assert [c.id for c in store.list_corrections(PROJECT, label="all", states=["learned", "failed"])] == [
            ids[1],
            ids[0],
        ]
        learned = store.get_correction(ids[0])
        assert (learned.note, learned.image_sha256, learned.labels) == ("ok", "a" * 64, ("l0", "all"))
        store.set_correction_state(ids[0], "pending")
        assert store.get_correction(ids[0]).image_sha256 == "a" * 64
        with pytest.raises(InvalidValueError, match="allowed"):
            store.list_corrections(PROJECT, states=["lost"])
        with pytest.raises(NotFoundError):
            store.set_correction_state(99, "learned")
        with pytest.raises(NotFoundError):
            store.get_correction(99)

    def test_retraction(self, store: TokenStore) -> None:
        first, job, _ = store.add_correction(correction("1"))
        store.add_correction(correction("2"))
        store.add_correction(correction("1", scope=OTHER))
        (changed,) = store.retract_corrections(PROJECT, ["1", "77"], note="annotation deleted")
        assert (changed.id, changed.state, changed.note) == (first.id, "retracted", "annotation deleted")
        assert job is not None
        assert store.get_job(job.id).state == "cancelled"
        assert store.retract_corrections(PROJECT, ["1"], note="again") == []
        assert [c.state for c in store.list_corrections(PROJECT)] == ["pending", "retracted"]
        assert [c.state for c in store.list_corrections(OTHER)] == ["pending"]
        assert [e["why"] for e in store.audit() if e["what"] == "correction.retracted"] == ["annotation deleted"]

    def test_bad_corrections_are_refused(self, store: TokenStore) -> None:
        for changes in ({"annotation_id": ""}, {"labels": ("ok", "")}, {"payload": {"x": float("inf")}}):
            with pytest.raises(InvalidValueError):
                store.add_correction(correction(**changes))
        assert store.list_corrections(PROJECT) == []
        assert store.list_jobs() == []

    def test_masks(self, store: TokenStore) -> None:
        first = store.add_correction(correction("1"))[0].id
        second = store.add_correction(correction("2"))[0].id
        mask = np.random.default_rng(0).random((37, 53)) > 0.5
        ring = np.zeros_like(mask)
        ring[0] = True
        nothing = np.zeros_like(mask)
        store.put_correction_masks(
            [
                CorrectionMask(first, "dog", "negative", nothing, ring),
                CorrectionMask(first, "cat", "positive", nothing, nothing),
                CorrectionMask(second, "cat", "positive", ~mask, nothing),
            ]
        )
        store.put_correction_masks([CorrectionMask(first, "cat", "positive", mask, ring)])
        got = store.correction_masks([second, first, 99])
        assert [(m.correction_id, m.label, m.kind) for m in got] == [
            (second, "cat", "positive"),
            (first, "cat", "positive"),
            (first, "dog", "negative"),
        ]
        np.testing.assert_array_equal(got[0].mask, ~mask)
        np.testing.assert_array_equal(got[1].mask, mask)
        np.testing.assert_array_equal(got[1].ignore, ring)
        assert got[1].mask.dtype == np.bool_
        assert [m.correction_id for m in store.correction_masks([first, second], "dog")] == [first]
        assert store.correction_masks([]) == []

    def test_bad_masks_are_refused_and_nothing_is_stored(self, store: TokenStore) -> None:
        known = store.add_correction(correction())[0].id
        mask = np.ones((4, 4), bool)
        good = CorrectionMask(known, "cat", "positive", mask, ~mask)
        with pytest.raises(NotFoundError, match="99"):
            store.put_correction_masks([good, replace(good, correction_id=99)])
        for bad in (
            replace(good, ignore=mask[:2]),
            replace(good, mask=mask.astype(np.uint8)),
            replace(good, mask=mask[0]),
            replace(good, kind="maybe"),
            replace(good, kind="negative"),
            replace(good, mask=mask[:0], ignore=mask[:0]),
        ):
            with pytest.raises(InvalidValueError):
                store.put_correction_masks([good, bad])
        assert store.correction_masks([known]) == []


class TestJobs:
    def test_life_of_a_job(self, store: TokenStore) -> None:
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

    def test_wrong_moves_are_refused(self, store: TokenStore) -> None:
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

    def test_retry_schedule(self, store: TokenStore) -> None:
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

    def test_interrupted_jobs_are_queued_again(self, store: TokenStore) -> None:
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

    def test_each_job_goes_to_one_worker(self, store: TokenStore, url: str) -> None:
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


class TestRecords:
    def test_images(self, store: TokenStore) -> None:
        received = ImageRecord("a" * 64, "received", 640, 480)
        generated = ImageRecord(
            "a" * 64, "generated", 640, 480, "a cat", "blurry", 2**64 - 1, "ddim", 7.5, 30, "tiny", {"half": "cond"}
        )
        assert store.get_image("a" * 64) is None
        store.put_image(received)
        store.put_image(replace(received, prompt="later"))
        assert store.get_image("a" * 64) == received
        store.put_image(generated)
        store.put_image(received)
        store.put_image(replace(generated, seed=1))
        assert store.get_image("a" * 64) == generated
        with pytest.raises(InvalidValueError, match="size"):
            store.put_image(replace(received, width=0))

    def test_served_predictions(self, store: TokenStore) -> None:
        start = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

        def served(minute: int, model: str, region: str, task: str = "3") -> ServedPrediction:
            at = start + timedelta(minutes=minute)
            return ServedPrediction(PROJECT, task, model, {region: "cat"}, {"cat": minute}, at)

        assert store.last_served(PROJECT, "3") is None
        store.put_served([served(0, "m1", "r0"), served(0, "m1", "other", task="4")])
        store.put_served([served(2, "m2", "r2"), served(1, "m1", "r1")])
        assert store.last_served(PROJECT, "3") == served(2, "m2", "r2")
        assert store.last_served(PROJECT, "4") == served(0, "m1", "other", task="4")
        assert store.last_served(OTHER, "3") is None
        store.put_served([served(3, "m1", "r3")])
        assert store.last_served(PROJECT, "3") == served(3, "m1", "r3")
        store.put_served([])

    def test_project_options(self, store: TokenStore) -> None:
        assert store.get_project_options(PROJECT) == {}
        store.put_project_options(PROJECT, {"overlap": "exclusive", "labels": ["é"]})
        store.put_project_options(PROJECT, {"overlap": "independent"})
        assert store.get_project_options(PROJECT) == {"overlap": "independent"}
        assert store.get_project_options(OTHER) == {}

    def test_closed_store_says_so(self, url: str) -> None:
        opened = open_store(url)
        opened.close()
        opened.close()
        with pytest.raises(StoreError, match="closed"):
            opened.list_tokens()
