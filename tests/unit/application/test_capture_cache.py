"""The capture cache on a real disk: round trips, damage, eviction, several processes, a full disk."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import Capture, CaptureInfo, Needs
from ovam_labeler.capture_cache import CaptureCache, CaptureKey

READER = {"backend": "test", "space": "ab", "settings": {"timesteps": [50]}}


def key(image: str = "a" * 64, **changes: object) -> CaptureKey:
    values = {"image": image, "origin": "received", "needs": Needs().key(), "reader": READER, "prompt": ""}
    return CaptureKey(**{**values, **changes})  # type: ignore[arg-type]


def capture(fill: float = 1.0, size: int = 1000) -> Capture:
    info = CaptureInfo(
        "received", (3, 5), (2, 2), (50, 10), seed=4, layout={"layers": [{"name": "down.0", "scale": 0.5}]}
    )
    base = torch.full((2, size), fill)
    return Capture(info, {"q": base.to(torch.float16), "view": base[0], "same": base[0], "scale": torch.tensor(fill)})


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("??/*.safetensors")
    return path


def test_round_trip(tmp_path: Path) -> None:
    cache = CaptureCache(tmp_path, 1_000_000)
    assert cache.get(key()) is None
    assert cache.put(key(), capture(0.25))
    for reading in (cache, CaptureCache(tmp_path, 1_000_000)):
        found = reading.get(key())
        assert found is not None
        assert found.info == capture(0.25).info
        assert found.tensors["q"].dtype == torch.float16
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in capture(0.25).tensors.items())
    assert not list(tmp_path.glob("**/*.tmp"))


def test_everything_that_shapes_a_capture_is_in_the_key() -> None:
    others = [
        key("b" * 64),
        key(origin="generated"),
        key(needs=Needs(self_attention=(2,)).key()),
        key(needs=Needs(timesteps=(10,)).key()),
        key(reader={**READER, "space": "cd"}),
        key(reader={**READER, "settings": {"timesteps": [51]}}),
        key(prompt="a cat"),
    ]
    assert len({k.digest() for k in [key(), *others]}) == len(others) + 1
    assert key().digest() == CaptureKey("a" * 64, "received", Needs().key(), dict(reversed(READER.items()))).digest()


@pytest.mark.parametrize("damage", ["truncate", "empty", "header", "flip", "garbage"])
def test_damage_is_found_and_the_entry_deleted(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache = CaptureCache(tmp_path, 1_000_000)
    cache.put(key(), capture())
    path = only_file(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-7] ^= 4
    elif damage == "header":
        data[3] = 0xFF
    path.write_bytes({"truncate": data[:-100], "empty": b"", "garbage": os.urandom(500)}.get(damage, bytes(data)))
    with caplog.at_level(logging.WARNING):
        assert cache.get(key()) is None
    assert "damaged" in caplog.text
    assert not path.exists()
    assert cache.put(key(), capture())
    assert cache.get(key()) is not None


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    one = CaptureCache(tmp_path, 10**9)
    one.put(key("0"), capture())
    each = one.size()
    cache = CaptureCache(tmp_path, int(each * 3.5))
    for name in "12":
        time.sleep(0.01)
        cache.put(key(name), capture())
    time.sleep(0.01)
    assert cache.get(key("0")) is not None
    time.sleep(0.01)
    cache.put(key("3"), capture())
    assert [cache.get(key(name)) is not None for name in "0123"] == [True, False, True, True]
    assert cache.size() <= each * 3.5


def test_a_mapped_capture_outlives_its_eviction(tmp_path: Path) -> None:
    cache = CaptureCache(tmp_path, 1_000_000)
    cache.put(key(), capture(3.0))
    found = cache.get(key())
    assert found is not None
    only_file(tmp_path).unlink()
    assert torch.equal(found.tensors["q"], capture(3.0).tensors["q"])


def test_too_large_and_zero_bound_keep_nothing(tmp_path: Path) -> None:
    for bound in (0, 500):
        cache = CaptureCache(tmp_path, bound)
        assert not cache.put(key(), capture())
        assert cache.size() == 0


def test_unwritable_disk_is_logged_once_and_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = CaptureCache(blocked / "captures", 1_000_000)
    with caplog.at_level(logging.WARNING):
        assert not cache.put(key(), capture())
        assert not cache.put(key("b"), capture())
    assert len(caplog.records) == 1
    assert cache.get(key()) is None


def _fill_disk(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    cache = CaptureCache(folder, 10**9)
    kept = cache.put(key(), capture(size=100_000))
    os._exit(0 if not kept and cache.get(key()) is None and not list(folder.glob("**/*.tmp")) else 1)


def test_no_space_left_leaves_nothing_behind(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_fill_disk, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _churn(folder: Path, seed: int) -> None:
    cache = CaptureCache(folder, 60_000)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(60):
        number = int(torch.randint(0, 12, (), generator=generator))
        found = cache.get(key(str(number)))
        if found is not None and not torch.equal(found.tensors["q"], capture(float(number)).tensors["q"]):
            os._exit(1)
        cache.put(key(str(number)), capture(float(number)))
    os._exit(0)


def test_several_processes_share_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_churn, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert CaptureCache(tmp_path, 60_000).size() <= 3 * 60_000


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_in_an_entrys_place_are_survived(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    cache = CaptureCache(tmp_path_factory.mktemp("cache"), 1_000_000)
    path = cache.path(key())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    assert cache.get(key()) is None
    assert not path.exists()
