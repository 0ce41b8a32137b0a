from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from backends.attention.binarize import recentre
from backends.contract import BackendError, Refiner
from backends.refiners import crf_process, dense_crf
from backends.refiners.crf_process import ANSWER, HEADER, MAGIC
from backends.refiners.dense_crf import INSTALL, PRESETS, CRFParameters, DenseCRF

installed = pytest.mark.skipif(
    importlib.util.find_spec("denseCRF") is None, reason="SimpleCRF could not be built here (needs a C++ compiler)"
)


@pytest.fixture
def refiner():
    made = DenseCRF("gentle")
    yield made
    made.close()


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy image of a disc, its mask, and a soft map of it that is too large and shifted."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :140]
    truth = (y - 44) ** 2 + (x - 66) ** 2 < 26**2
    image = np.where(truth[..., None], (210, 70, 50), (60, 120, 160)) + rng.normal(0, 5, (90, 140, 3))
    soft = 1 / (1 + np.exp((np.hypot(y - 46, x - 69) - 29) / 4))
    return image.clip(0, 255).astype(np.uint8), truth, soft.astype(np.float32)


def iou(soft: np.ndarray, truth: np.ndarray) -> float:
    mask = soft >= 0.5
    return float((mask & truth).sum() / (mask | truth).sum())


def test_presets_are_the_documented_tuples() -> None:
    assert PRESETS["paper"] == CRFParameters(10, 80, 13, 3, 3, 5)
    assert PRESETS["gentle"] == CRFParameters(5, 20, 13, 3, 3, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("w1", -1),
        ("w2", float("nan")),
        ("alpha", 0),
        ("beta", float("inf")),
        ("gamma", 1e9),
        ("iterations", 0),
        ("iterations", 2.5),
    ],
)
def test_parameters_that_crash_the_extension_are_refused(field, value) -> None:
    good = {"w1": 5.0, "alpha": 20.0, "beta": 13.0, "w2": 3.0, "gamma": 3.0, "iterations": 5}
    with pytest.raises(BackendError, match=f"{field} is"):
        CRFParameters(**{**good, field: value})


def test_without_the_extra_it_says_what_to_type(monkeypatch) -> None:
    monkeypatch.setattr(dense_crf.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError) as caught:
        DenseCRF()
    assert INSTALL in str(caught.value)


@installed
def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(BackendError, match="'strong'; one of paper, gentle"):
        DenseCRF("strong")


@installed
@pytest.mark.parametrize("preset", PRESETS)
def test_a_wrong_border_moves_to_the_edge(preset) -> None:
    image, truth, soft = scene()
    refiner = DenseCRF(preset)
    try:
        assert isinstance(refiner, Refiner)
        refined = refiner.refine(image, soft)
    finally:
        refiner.close()
    assert refined.shape == soft.shape and refined.dtype == np.float32
    assert set(np.unique(refined)) == {0.0, 1.0}
    assert iou(soft, truth) < 0.85 and iou(refined, truth) > 0.95


@installed
def test_width_and_height_are_not_swapped(refiner) -> None:
    image = np.zeros((20, 50, 3), np.uint8)
    soft = np.zeros((20, 50), np.float32)
    image[2:9, 30:45] = 255
    soft[2:9, 30:45] = 1
    assert np.array_equal(refiner.refine(image, soft), soft)


@installed
def test_a_relative_map_is_recentred_first(refiner) -> None:
    """A map whose threshold is 0.2 keeps its object only after its threshold was moved to 0.5."""
    image, truth, soft = scene()
    low = soft * 0.4
    assert iou(refiner.refine(image, low), truth) < 0.1
    assert iou(refiner.refine(image, recentre(low, 0.2)), truth) > 0.9


@installed
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (3, 2)])
def test_tiny_images(refiner, shape) -> None:
    refined = refiner.refine(np.full((*shape, 3), 7, np.uint8), np.ones(shape, np.float32))
    assert refined.shape == shape and refined.min() == 1


@installed
def test_large_images_are_refined_smaller() -> None:
    image, truth, soft = scene()
    small = DenseCRF("gentle", max_side=70)
    try:
        refined = small.refine(image, soft)
    finally:
        small.close()
    assert refined.shape == soft.shape
    assert refined.min() >= 0 and refined.max() <= 1 and iou(refined, truth) > 0.9


@installed
def test_input_is_checked_before_the_extension_sees_it(refiner) -> None:
    image, _, soft = scene()
    for bad_image, bad_soft in (
        (image[..., :2], soft),
        (image, soft[:-1]),
        (image, soft + 1),
        (image.astype(int), soft),
    ):
        with pytest.raises(BackendError):
            refiner.refine(bad_image, bad_soft)
    assert refiner._helper._process is None


@installed
def test_a_killed_helper_is_replaced(refiner) -> None:
    image, _, soft = scene()
    first = refiner.refine(image, soft)
    old = refiner._helper._process.pid
    os.kill(old, signal.SIGKILL)
    refiner._helper._process.wait()
    assert np.array_equal(refiner.refine(image, soft), first)
    assert refiner._helper._process.pid != old


def fake_helper(tmp_path: Path, monkeypatch, body: str) -> None:
    """Let the refiner start another program as its helper (it looks beside its own module)."""
    (tmp_path / "crf_process.py").write_text(body)
    monkeypatch.setattr(dense_crf, "__file__", str(tmp_path / "dense_crf.py"))


@installed
def test_a_helper_that_crashes_gives_a_sentence(refiner, tmp_path, monkeypatch) -> None:
    image, _, soft = scene()
    fake_helper(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(BackendError, match="crashed twice"):
        refiner.refine(image, soft)
    monkeypatch.undo()
    assert refiner.refine(image, soft).shape == soft.shape


@installed
def test_a_helper_that_hangs_is_ended(tmp_path, monkeypatch) -> None:
    image, _, soft = scene()
    fake_helper(tmp_path, monkeypatch, "import sys, time; sys.stdin.buffer.read(1); time.sleep(60)")
    refiner = DenseCRF("gentle", timeout=0.5)
    with pytest.raises(BackendError, match=r"longer than 0\.5 seconds"):
        refiner.refine(image, soft)
    assert refiner._helper._process is None


@installed
def test_it_is_replaced_before_its_leak_matters(refiner, monkeypatch) -> None:
    image, _, soft = scene()
    monkeypatch.setattr(dense_crf._Helper, "_LEAK", 90 * 140 - 1)
    refiner.refine(image, soft)
    old = refiner._helper._process.pid
    refiner.refine(image, soft)
    assert refiner._helper._process.pid != old


@installed
def test_threads_share_one_helper(refiner) -> None:
    image, _, soft = scene()
    alone = refiner.refine(image, soft)
    mirrored = refiner.refine(image[:, ::-1], soft[:, ::-1])
    results: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        results[i] = refiner.refine(image, soft) if i % 2 else refiner.refine(image[:, ::-1], soft[:, ::-1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(np.array_equal(results[i], alone if i % 2 else mirrored) for i in range(6))


@installed
def test_the_helper_ends_with_its_parent() -> None:
    """Its stdin is closed when the parent dies, however it dies."""
    process = subprocess.Popen(
        [sys.executable, "-P", crf_process.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(HEADER.pack(MAGIC, 4, 4, 5, 20, 13, 3, 3, 5)[:10])
    process.stdin.close()
    assert process.wait(30) == 0


def test_a_helper_without_the_extension_answers_with_a_sentence(tmp_path) -> None:
    (tmp_path / "denseCRF.py").write_text("raise ImportError('built for another numpy')")
    request = HEADER.pack(MAGIC, 1, 1, 5, 20, 13, 3, 3, 5) + bytes(11)
    done = subprocess.run(
        [sys.executable, "-P", crf_process.__file__],
        input=request,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=60,
    )
    magic, status, length = ANSWER.unpack(done.stdout[: ANSWER.size])
    text = done.stdout[ANSWER.size :].decode()
    assert (magic, status, length) == (MAGIC, 1, len(text))
    assert "built for another numpy" in text


def test_a_request_of_another_kind_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-P", crf_process.__file__], input=bytes(HEADER.size), capture_output=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == b""
