"""What a pending job needs stays in the cache, in whichever process something has to go; nothing is pinned for ever."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_model import COLOURS, ColourModel, box, scene

from backends.contract import Capture, CaptureInfo, Needs
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.capture_cache import CaptureCache, CaptureKey
from ovam_labeler.domain import LoadedImage
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.pending_images import PendingImages
from ovam_labeler.settings import Settings
from token_store.contract import StoreError
from token_store.entities import NewCorrection, Scope
from token_store.sqlalchemy_store import open_store

SCOPE = Scope("default", "1")


def key(image: str) -> CaptureKey:
    return CaptureKey(image, "received", Needs().key(), {"backend": "test"})


def capture(fill: float = 1.0, size: int = 1000) -> Capture:
    return Capture(CaptureInfo("received", (3, 5), (2, 2), (50,)), {"queries.a": torch.full((size,), fill)})


def kept(cache: CaptureCache, names: str) -> str:
    return "".join(name for name in names if cache.path(key(name * 64)).exists())


def filled(folder: Path, names: str, **options: object) -> CaptureCache:
    """A cache with room for 3.5 entries, filled in that order."""
    big = CaptureCache(folder, 10**9)
    big.put(key("f" * 64), capture())
    each = big.size()
    big.prune(0)
    cache = CaptureCache(folder, int(each * 3.5), **options)  # type: ignore[arg-type]
    for number, name in enumerate(names):
        cache.put(key(name * 64), capture())
        if cache.path(key(name * 64)).exists():
            os.utime(cache.path(key(name * 64)), (1000 + number, 1000 + number))
    return cache


def test_pinned_entries_stay_and_others_go_in_their_place(tmp_path: Path) -> None:
    cache = filled(tmp_path, "abcde", pinned=lambda: {"a" * 64})
    assert kept(cache, "abcde") == "ade"
    assert {e.header.key["image"][0]: e.pinned for e in cache.entries() if e.header} == {
        "a": True,
        "d": False,
        "e": False,
    }


def test_where_only_pinned_entries_are_left_the_new_one_is_not_kept(tmp_path: Path) -> None:
    cache = filled(tmp_path, "abc", pinned=lambda: {name * 64 for name in "abc"})
    assert not cache.put(key("d" * 64), capture())
    assert kept(cache, "abcd") == "abc"


def test_a_pinned_new_entry_may_exceed_the_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = filled(tmp_path, "abcd", pinned=lambda: {name * 64 for name in "abcd"})
    assert kept(cache, "abcd") == "abcd"
    assert "for pending jobs" in caplog.text
    freed = CaptureCache(tmp_path, cache.max_bytes)
    freed.put(key("e" * 64), capture())
    assert kept(freed, "abcde") == "cde"


def test_nothing_goes_while_pending_jobs_cannot_be_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> set[str]:
        raise StoreError("The database is locked.")

    cache = filled(tmp_path, "abcde", pinned=broken)
    assert kept(cache, "abcde") == "abcde"
    assert "database is locked" in caplog.text


def picture(at: int) -> LoadedImage:
    return load_image(encode_png(scene((COLOURS["red"], (at, at, 20, 20)))))


def correction(number: int, image: LoadedImage | None, label: str = "red") -> NewCorrection:
    payload = {"tool": "direct"} if image is None else {"tool": "direct", "image_sha256": image.sha256}
    return NewCorrection(SCOPE, f"a{number}", "2026-01-01T00:00:00Z", "", "ref", payload, (label,))


def test_a_pending_job_pins_its_image_and_its_classes_lessons(app: OvamApplication) -> None:
    pending = PendingImages(app.store)
    assert pending() == frozenset()
    images = [picture(k) for k in range(4)]
    old, _, _ = app.store.add_correction(correction(0, None), job_kind=None)
    app.store.set_correction_state(old.id, "learned", image_sha256=images[0].sha256)
    app.store.add_correction(correction(1, images[1], "blue"), job_kind=None)
    _, job, _ = app.store.add_correction(correction(2, images[2]))
    app.store.add_correction(correction(3, None))  # an image that nobody has fetched yet
    assert job is not None
    assert pending() == {images[0].sha256, images[2].sha256}
    claimed = app.store.claim_job("worker", ("learn",))
    assert claimed is not None and claimed.id == job.id
    assert images[2].sha256 in pending()  # also where the worker has died: it is queued again at the next start
    app.store.finish_job(job.id, state="done")
    other = app.store.claim_job("worker", ("learn",))
    assert other is not None
    app.store.finish_job(other.id, state="failed")
    assert pending() == frozenset()


def test_learning_takes_its_captures_from_a_cache_that_others_fill(settings: Settings) -> None:
    """A correction waits while a flood of predictions goes through a cache of a few entries."""
    model = ColourModel()
    small = settings.model_copy(update={"cache_max_bytes": 30_000})
    with build_application(small, loader=model.load) as app:
        image = load_image(encode_png(scene((COLOURS["red"], (8, 8, 32, 32)))))
        app.learner.learn_mask(image, box(8, 8, 32, 32), "red", SCOPE, created_by="me")
        _, job, _ = app.store.add_correction(correction(7, image))
        for at in range(30):
            app.inference.submit(picture(at), Needs()).result(20)
        assert app.cache.size() <= 30_000
        passes = model.reader.unet_passes
        assert app.inference.submit(image, Needs()).done()
        assert model.reader.unet_passes == passes
        assert job is not None
        app.store.claim_job("worker")
        app.store.finish_job(job.id, state="cancelled")
        for at in range(30, 44):
            app.inference.submit(picture(at), Needs()).result(20)
        assert app.inference.cached(image.sha256, Needs()) is None


def _flood(folder: Path, database: str, seed: int) -> None:
    """Put, get and evict at random; a capture that is not its key's, or a pinned one that is gone, is a failure."""
    store = open_store(database)
    cache = CaptureCache(folder, 40_000, PendingImages(store))
    draw = np.random.default_rng(seed)
    needed = key("a" * 64)
    for _ in range(80):
        number = int(draw.integers(0, 14))
        name = f"{number:064x}"
        found = cache.get(key(name))
        if found is not None and not torch.equal(found.tensors["queries.a"], capture(number).tensors["queries.a"]):
            os._exit(1)
        cache.put(key(name), capture(number))
        if cache.get(needed) is None:
            os._exit(2)
        if draw.random() < 0.05:
            cache.prune(20_000)
    store.close()
    os._exit(0)


def test_several_processes_evict_at_once_and_keep_what_a_job_needs(settings: Settings, tmp_path: Path) -> None:
    database = settings.resolved_database_url()
    folder = tmp_path / "captures"
    store = open_store(database)
    store.add_correction(
        NewCorrection(SCOPE, "a1", "2026-01-01T00:00:00Z", "", "ref", {"image_sha256": "a" * 64}, ("red",))
    )
    store.close()
    CaptureCache(folder, 40_000).put(key("a" * 64), capture())
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_flood, args=(folder, database, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert CaptureCache(folder, 40_000).size() <= 40_000
    assert not list(folder.glob("**/*.tmp"))
