"""Contract of the token store: corrections and their jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from token_store_samples import OTHER, PROJECT, correction

from token_store.contract import InvalidValueError, NotFoundError, TokenStore


def test_stored_with_its_job(store: TokenStore) -> None:
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


def test_replay_is_not_fresh(store: TokenStore) -> None:
    first = store.add_correction(correction())
    replay = store.add_correction(correction(payload={"other": 1}))
    assert replay == (first[0], first[1], False)
    assert len(store.list_jobs()) == 1
    elsewhere = store.add_correction(correction(scope=OTHER))
    assert elsewhere[2]
    assert elsewhere[0].id != first[0].id


def test_newer_replaces_older(store: TokenStore) -> None:
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


def test_running_job_of_replaced_correction_is_left_to_its_worker(store: TokenStore) -> None:
    old, job, _ = store.add_correction(correction())
    store.claim_job("w")
    store.add_correction(correction(updated="2026-11-24T10:00:00Z"))
    assert job is not None
    assert store.get_job(job.id).state == "running"
    store.set_correction_state(old.id, "learned", note="too late", image_sha256="f" * 64)
    stored = store.get_correction(old.id)
    assert (stored.state, stored.image_sha256) == ("retracted", "f" * 64)
    assert stored.note != "too late"


def test_late_older_event_does_not_replace_the_newer(store: TokenStore) -> None:
    new, _, _ = store.add_correction(correction(updated="2026-11-23T10:00:00.5Z"))
    old, job, fresh = store.add_correction(correction(updated="2026-11-23T11:00:00+02:00"))
    assert (old.state, job, fresh) == ("retracted", None, True)
    assert store.get_correction(new.id).state == "pending"


def test_what_teaches_nothing_gets_no_job_but_replaces(store: TokenStore) -> None:
    taught, _, _ = store.add_correction(correction())
    stored, job, fresh = store.add_correction(correction(updated="2026-11-24T10:00:00Z", labels=()))
    assert (stored.state, job, fresh) == ("ignored", None, True)
    assert store.get_correction(taught.id).state == "retracted"
    unjobbed, job, _ = store.add_correction(correction("8"), job_kind=None)
    assert (unjobbed.state, job) == ("pending", None)


def test_same_event_from_many_threads_is_fresh_once(store: TokenStore) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: store.add_correction(correction()), range(18)))
    assert sum(fresh for _, _, fresh in answers) == 1
    assert len({stored.id for stored, _, _ in answers}) == 1
    assert len(store.list_jobs()) == 1


def test_listing(store: TokenStore) -> None:
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


def test_retraction(store: TokenStore) -> None:
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


def test_bad_corrections_are_refused(store: TokenStore) -> None:
    for changes in ({"annotation_id": ""}, {"labels": ("ok", "")}, {"payload": {"x": float("inf")}}):
        with pytest.raises(InvalidValueError):
            store.add_correction(correction(**changes))
    assert store.list_corrections(PROJECT) == []
    assert store.list_jobs() == []
