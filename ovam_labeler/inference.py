"""Gives captures: from the cache at once, else from one reader thread that owns the diffusion model.

Equal work in flight is joined by cache key: Label Studio asks twice for one task.  Different images of one size that wait
together are read in one batch (:mod:`ovam_labeler.reader_thread`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backends.contract import DEFAULT_PRESET, Backend, Capture, Needs, Progress, Reader, ReadRequest, capture_many
from ovam_labeler.capture_cache import CaptureCache, CaptureKey
from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import ModelError
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.reader_thread import ReaderThread, Waiting
from ovam_labeler.translate import translate_errors
from token_store.contract import TokenStore
from token_store.entities import ImageRecord

log = logging.getLogger(__name__)

#: An image made again on other hardware may differ by rounding; beyond this mean difference (of 255) it is another image.
SAME_IMAGE = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A received image to read."""

    key: CaptureKey
    image: LoadedImage
    needs: Needs
    prompt: str
    progress: Progress | None

    def request(self) -> ReadRequest:
        return ReadRequest(self.image.pixels, self.prompt)


class InferenceService:
    """Implements :class:`ovam_labeler.services.Inference`.  Thread-safe."""

    def __init__(
        self,
        backend: Callable[[], Backend],
        cache: CaptureCache,
        store: TokenStore,
        threads: int = 0,
        preset: str = DEFAULT_PRESET,
    ) -> None:
        """Args: backend loads the base model at its first call; threads of the reader, 0 = the cores available; preset
        how captures keep queries, whatever the needs that come in say."""
        self._backend = backend
        self._cache = cache
        self._store = store
        self._preset = preset
        self._thread: ReaderThread[_Read] = ReaderThread(self._read_all, threads)
        self._in_flight: dict[str, Future[Capture]] = {}
        self._lock = threading.Lock()
        self._reader: Reader | None = None

    def submit(
        self, image: LoadedImage, needs: Needs, *, prompt: str = "", progress: Progress | None = None
    ) -> Future[Capture]:
        """See :meth:`ovam_labeler.services.Inference.submit`.  Loads text encoder and keys in the calling thread.

        ``progress`` is told of a read this call starts, not of one it joins.
        """
        backend, needs = self._backend(), replace(needs, preset=self._preset)
        with translate_errors():
            record = self._store.get_image(image.sha256)
        if record is not None and _made_by(record, backend):
            key = _key(backend, image.sha256, needs, "generated")
            again = record
            return self._join(
                key,
                lambda future: self._thread.call(
                    lambda: self._cache.get(key) or self._make_again(key, again, image, needs, prompt, progress), future
                ),
            )
        read = _Read(_key(backend, image.sha256, needs, "received", prompt), image, needs, prompt, progress)
        kind = (needs.key(), image.pixels.shape)
        return self._join(read.key, lambda future: self._thread.read(Waiting(kind, read, future)))

    def cached(self, sha256: str, needs: Needs, *, prompt: str = "") -> Capture | None:
        """The capture of an image known by its identity alone; None where it has to be read (with :meth:`submit`)."""
        backend, needs = self._backend(), replace(needs, preset=self._preset)
        with translate_errors():
            record = self._store.get_image(sha256)
        made = record is not None and _made_by(record, backend)
        key = _key(backend, sha256, needs, "generated") if made else _key(backend, sha256, needs, "received", prompt)
        return self._cache.get(key)

    def generate(
        self, prompt: str, *, seed: int, needs: Needs, progress: Progress | None = None, **options: Any
    ) -> tuple[LoadedImage, bytes, Capture]:
        """See :meth:`ovam_labeler.services.Inference.generate`; options as the reader's: ``negative_prompt``,
        ``steps``, ``guidance``, ``size``."""
        kept = replace(needs, preset=self._preset)
        work = self._thread.call(lambda: self._generate(prompt, seed, kept, progress, options))
        result: tuple[LoadedImage, bytes, Capture] = work.result()
        return result

    def warm_up(self) -> None:
        """Load the base model in the background; a failure is logged and told again by the first request."""
        self._thread.call(self._loaded_reader).add_done_callback(_log_failure)

    def close(self) -> None:
        """Finish the read that runs, refuse those waiting, end the thread."""
        self._thread.close()

    def _join(self, key: CaptureKey, start: Callable[[Future[Capture]], object]) -> Future[Capture]:
        """The future of this key's work: finished from the cache, under way already, or started now."""
        digest = key.digest()
        with self._lock:
            if (running := self._in_flight.get(digest)) is not None:
                return running
        cached = self._cache.get(key)
        with self._lock:
            if (running := self._in_flight.get(digest)) is not None:
                return running
            future: Future[Capture] = Future()
            # Shared by all who asked, so nobody may cancel it for the others.
            future.set_running_or_notify_cancel()
            if cached is None:
                self._in_flight[digest] = future
        if cached is not None:
            future.set_result(cached)
            return future

        def forget(_: Future[Capture]) -> None:
            with self._lock:
                self._in_flight.pop(digest, None)

        future.add_done_callback(forget)
        start(future)
        return future

    # -- on the reader thread ------------------------------------------------------------------------------------------
    def _loaded_reader(self) -> Reader:
        if self._reader is None:
            backend = self._backend()
            with translate_errors(ModelError):
                self._reader = backend.reader()
        return self._reader

    def _read_all(self, waiting: list[Waiting[_Read]]) -> None:
        """Resolve the futures of reads of one kind; those of several images are read in one batch."""
        left = []
        for one in waiting:
            # Looked up again here: another process, or work that ended just now, may have stored it.
            if (capture := self._cache.get(one.request.key)) is not None:
                one.future.set_result(capture)
            else:
                left.append(one)
        if len(left) > 1 and self._read_batch(left):
            return
        for one in left:
            try:
                one.future.set_result(self._read(one.request))
            except BaseException as error:  # handed to whoever waits, cancelling included
                one.future.set_exception(error)

    def _read_batch(self, waiting: list[Waiting[_Read]]) -> bool:
        """Read them together; False where that failed and each must find out for itself, nothing resolved."""
        dropped: dict[int, BaseException] = {}

        def report(fraction: float, sentence: str) -> None:
            for index, one in enumerate(waiting):
                if one.request.progress is not None and index not in dropped:
                    try:
                        one.request.progress(fraction, sentence)
                    except BaseException as error:  # a cancel of this one; the others go on
                        dropped[index] = error

        try:
            requests = [one.request.request() for one in waiting]
            captures = capture_many(self._loaded_reader(), requests, waiting[0].request.needs, progress=report)
        except Exception as error:
            log.debug("A batch of %d reads failed and is read one by one: %s", len(waiting), error)
            return False
        for index, (one, capture) in enumerate(zip(waiting, captures, strict=True)):
            self._cache.put(one.request.key, capture)
            if index in dropped:
                one.future.set_exception(dropped[index])
            else:
                one.future.set_result(capture)
        return True

    def _read(self, read: _Read) -> Capture:
        reader = self._loaded_reader()
        with translate_errors():
            capture = reader.capture(read.image.pixels, read.needs, prompt=read.prompt, progress=read.progress)
        self._cache.put(read.key, capture)
        return capture

    def _generate(
        self, prompt: str, seed: int, needs: Needs, progress: Progress | None, options: dict[str, Any]
    ) -> tuple[LoadedImage, bytes, Capture]:
        reader = self._loaded_reader()
        backend = self._backend()
        with translate_errors():
            made = reader.generate(prompt, needs, seed=seed, progress=progress, **options)
        png = encode_png(made.image)
        image = load_image(png, max_pixels=max(made.image.size, 1), max_bytes=len(png))
        info = made.capture.info
        record = ImageRecord(
            sha256=image.sha256,
            origin="generated",
            width=image.width,
            height=image.height,
            prompt=prompt,
            negative_prompt=info.negative_prompt,
            seed=seed,
            scheduler=info.scheduler,
            guidance=info.guidance,
            steps=info.steps,
            model=info.model,
            extra={**_reader_of(backend), "options": options},
        )
        # The record first: a capture nobody can find is waste, a record without its capture is made again.
        with translate_errors():
            self._store.put_image(record)
        self._cache.put(_key(backend, image.sha256, needs, "generated"), made.capture)
        return image, png, made.capture

    def _make_again(
        self,
        key: CaptureKey,
        record: ImageRecord,
        image: LoadedImage,
        needs: Needs,
        prompt: str,
        progress: Progress | None,
    ) -> Capture:
        """The capture of a generated image whose entry is gone, from its record; verified against the image.

        On the same machine with the same number of threads it is the same, bit for bit.
        """
        reader = self._loaded_reader()
        with translate_errors():
            made = reader.generate(
                record.prompt, needs, seed=int(record.seed or 0), progress=progress, **_making(record)
            )
        if not _same_image(made.image, image.pixels):
            log.warning("Image %s could not be made again alike; it is read as a received one.", record.sha256[:12])
            backend = self._backend()
            received = _Read(_key(backend, image.sha256, needs, "received", prompt), image, needs, prompt, progress)
            return self._cache.get(received.key) or self._read(received)
        self._cache.put(key, made.capture)
        return made.capture


def _reader_of(backend: Backend) -> dict[str, Any]:
    return {
        "backend": backend.name,
        "space": backend.attributor.fingerprint.space,
        "settings": dict(backend.reader_settings),
    }


def _key(backend: Backend, sha256: str, needs: Needs, origin: str, prompt: str = "") -> CaptureKey:
    return CaptureKey(sha256, origin, needs.key(), _reader_of(backend), prompt)


def _made_by(record: ImageRecord, backend: Backend) -> bool:
    """Whether this base model made the image; another's image is read like any received one."""
    return (
        record.origin == "generated"
        and record.seed is not None
        and record.extra.get("backend") == backend.name
        and record.extra.get("space") == backend.attributor.fingerprint.space
    )


def _making(record: ImageRecord) -> dict[str, Any]:
    """The reader's options as they were when the image was made; a default that changed since must not count."""
    options = dict(record.extra.get("options", {}))
    recorded = {"steps": record.steps, "guidance": record.guidance, "negative_prompt": record.negative_prompt or None}
    options |= {name: value for name, value in recorded.items() if value is not None}
    options["size"] = (record.height, record.width)
    return options


def _same_image(made: np.ndarray, wanted: np.ndarray) -> bool:
    if made.shape != wanted.shape:
        return False
    return bool(np.abs(made.astype(np.int16) - wanted.astype(np.int16)).mean() <= SAME_IMAGE)


def _log_failure(future: Future[Any]) -> None:
    if (error := future.exception()) is not None:
        log.warning("The base model could not be loaded yet: %s", error)
