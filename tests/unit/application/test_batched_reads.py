"""Reads that wait together: one batch a size and needs, each image's own result, error and cancel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from colour_model import COLOURS, ColourModel, ColourReader, scene

from backends.contract import BackendError, Capture, Needs, Progress, ReadRequest
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import BadRequestError, CancelledError
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.reader_thread import MOST_READS, ReaderThread, Waiting
from ovam_labeler.settings import Settings


class BatchingReader(ColourReader):
    """Notes the size of each batch; refuses one that holds an image of a single colour."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def capture_many(
        self, requests: Sequence[ReadRequest], needs: Needs, *, progress: Progress | None = None
    ) -> list[Capture]:
        self.batches.append(len(requests))
        if progress is not None:
            progress(0.5, "Reading together")
        return [self.capture(r.image, needs, prompt=r.prompt, seed=r.seed) for r in requests]

    def capture(self, image: np.ndarray, needs: Needs, **options: object) -> Capture:  # type: ignore[override]
        if (image == image[0, 0]).all():
            raise BackendError("The image has one colour only.")
        return super().capture(image, needs, **options)  # type: ignore[arg-type]


@pytest.fixture
def batching(settings: Settings) -> Iterator[tuple[OvamApplication, BatchingReader]]:
    model = ColourModel()
    model.reader = BatchingReader()
    with build_application(settings, loader=model.load) as app:
        yield app, model.reader


def picture(number: int, size: tuple[int, int] = (64, 96)) -> LoadedImage:
    return load_image(encode_png(scene((COLOURS["red"], (number, 2 * number, 20, 20)), size=size)))


def held(app: OvamApplication, reader: ColourReader) -> Future[Capture]:
    """A read that keeps the thread busy until the gate opens."""
    reader.gate.clear()
    future = app.inference.submit(picture(30), Needs())
    while not reader.threads:
        time.sleep(0.01)
    return future


def test_waiting_reads_of_one_size_are_one_batch(batching: tuple[OvamApplication, BatchingReader]) -> None:
    app, reader = batching
    first = held(app, reader)
    images = [picture(k) for k in range(5)]
    futures = [app.inference.submit(image, Needs()) for image in images]
    twice = app.inference.submit(images[0], Needs())
    wide = [app.inference.submit(picture(k, (32, 64)), Needs()) for k in range(2)]
    other = app.inference.submit(images[0], Needs(self_attention=(1,)))
    reader.gate.set()
    found = [future.result(20) for future in futures]
    assert twice is futures[0]
    for future in (first, *wide, other):
        future.result(20)
    assert reader.batches == [5, 2]
    alone = ColourReader()
    for image, capture in zip(images, found, strict=True):
        assert torch.equal(capture.tensors["q"], alone.capture(image.pixels, Needs()).tensors["q"])
        assert app.inference.cached(image.sha256, Needs()) is not None


def test_more_than_a_batch_waits_for_the_next(batching: tuple[OvamApplication, BatchingReader]) -> None:
    app, reader = batching
    held(app, reader)
    futures = [app.inference.submit(picture(k), Needs()) for k in range(MOST_READS + 3)]
    reader.gate.set()
    for future in futures:
        future.result(20)
    assert reader.batches == [MOST_READS, 3]


def test_one_bad_image_costs_the_others_nothing(batching: tuple[OvamApplication, BatchingReader]) -> None:
    app, reader = batching
    held(app, reader)
    plain = load_image(encode_png(np.full((64, 96, 3), 7, np.uint8)))
    futures = [app.inference.submit(image, Needs()) for image in (picture(1), plain, picture(2))]
    reader.gate.set()
    assert futures[0].result(20) is not None and futures[2].result(20) is not None
    with pytest.raises(BadRequestError, match="one colour only"):
        futures[1].result(20)


def test_cancelling_one_of_a_batch_leaves_the_others(batching: tuple[OvamApplication, BatchingReader]) -> None:
    app, reader = batching
    held(app, reader)
    told: list[float] = []

    def cancel(fraction: float, sentence: str) -> None:
        raise CancelledError("Enough.")

    one = app.inference.submit(picture(1), Needs(), progress=cancel)
    other = app.inference.submit(picture(2), Needs(), progress=lambda fraction, _: told.append(fraction))
    reader.gate.set()
    assert other.result(20) is not None and told == [0.5]
    with pytest.raises(CancelledError):
        one.result(20)
    assert reader.batches == [2]


def test_a_reader_without_batches_is_asked_one_by_one(app: OvamApplication, model: ColourModel) -> None:
    held(app, model.reader)
    futures = [app.inference.submit(picture(k), Needs()) for k in range(3)]
    model.reader.gate.set()
    assert len({id(future.result(20)) for future in futures}) == 3
    assert model.reader.unet_passes == 4


def test_calls_keep_their_place_among_reads() -> None:
    order: list[object] = []
    gate = threading.Event()

    def read(waiting: list[Waiting[int]]) -> None:
        gate.wait(20)
        order.append([one.request for one in waiting])
        for one in waiting:
            one.future.set_result(None)

    thread = ReaderThread(read, threads=1)
    start: Callable[[int, str], Waiting[int]] = lambda number, kind: Waiting(kind, number)  # noqa: E731
    thread.read(start(0, "first"))
    time.sleep(0.1)
    waiting = [start(1, "a"), start(2, "b"), start(3, "a")]
    thread.read(waiting[0])
    called = thread.call(lambda: order.append("call"))
    for one in waiting[1:]:
        thread.read(one)
    gate.set()
    called.result(20)
    waiting[1].future.result(20)
    thread.close()
    assert order == [[0], [1, 3], "call", [2]]


def test_a_read_that_raises_reaches_its_waiters_and_the_thread_lives_on() -> None:
    def read(waiting: list[Waiting[int]]) -> None:
        raise ValueError("broken promise")

    thread = ReaderThread(read, threads=1)
    one = Waiting("a", 1)
    thread.read(one)
    with pytest.raises(ValueError, match="broken"):
        one.future.result(20)
    assert thread.call(lambda: 5).result(20) == 5
    thread.close()
