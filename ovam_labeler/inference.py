"""Gives captures: from the cache at once, else from one reader thread that owns the diffusion model.

The reader is not thread-safe and a device has room for one, so a single thread loads it (at the first need) and serves
all reads in order.  Equal work in flight is joined by cache key: Label Studio asks twice for one task.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
import torch

from backends.contract import Backend, Capture, Needs, Progress, Reader
from ovam_labeler.capture_cache import CaptureCache, CaptureKey
from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import ModelError, OvamError
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.translate import translate_errors
from token_store.contract import TokenStore
from token_store.entities import ImageRecord

log = logging.getLogger(__name__)

#: An image made again on other hardware may differ by rounding; beyond this mean difference (of 255) it is another image.
SAME_IMAGE = 2.0

_CLOSING = "The program is shutting down; the work was not done."

Work = Callable[[], Any]


class InferenceService:
    """Implements :class:`ovam_labeler.services.Inference`.  Thread-safe."""

    def __init__(
        self, backend: Callable[[], Backend], cache: CaptureCache, store: TokenStore, threads: int = 0
    ) -> None:
        """Args: backend loads the base model at its first call; threads of the reader, 0 = the cores available."""
        self._backend = backend
        self._cache = cache
        self._store = store
        self._threads = threads
        self._queue: Queue[tuple[Work, Future[Any]] | None] = Queue()
        self._in_flight: dict[str, Future[Capture]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._reader: Reader | None = None

    def submit(
        self, image: LoadedImage, needs: Needs, *, prompt: str = "", progress: Progress | None = None
    ) -> Future[Capture]:
        """See :meth:`ovam_labeler.services.Inference.submit`.  Loads text encoder and keys in the calling thread.

        ``progress`` is told of a read this call starts, not of one it joins.
        """
        backend = self._backend()
        with translate_errors():
            record = self._store.get_image(image.sha256)
        if record is not None and _made_by(record, backend):
            key = _key(backend, image.sha256, needs, "generated")
            work: Work = lambda: self._make_again(key, record, image, needs, prompt, progress)  # noqa: E731
        else:
            key = _key(backend, image.sha256, needs, "received", prompt)
            work = lambda: self._read(key, image, needs, prompt, progress)  # noqa: E731
        return self._join(key, work)

    def cached(self, sha256: str, needs: Needs, *, prompt: str = "") -> Capture | None:
        """The capture of an image known by its identity alone; None where it has to be read (with :meth:`submit`)."""
        backend = self._backend()
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
        work: Work = lambda: self._generate(prompt, seed, needs, progress, options)  # noqa: E731
        result: tuple[LoadedImage, bytes, Capture] = self._enqueue(work, Future()).result()
        return result

    def warm_up(self) -> None:
        """Load the base model in the background; a failure is logged and told again by the first request."""
        self._enqueue(self._loaded_reader, Future()).add_done_callback(_log_failure)

    def close(self) -> None:
        """Finish the read that runs, refuse those waiting, end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
        with suppress(Empty):
            while True:
                if (item := self._queue.get_nowait()) is not None:
                    item[1].set_exception(OvamError(_CLOSING))
        self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- one thread ----------------------------------------------------------------------------------------------------
    def _join(self, key: CaptureKey, work: Work) -> Future[Capture]:
        """The future of this key's work: finished from the cache, under way already, or new."""
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
        # Looked up again on the thread: another process, or work that ended just now, may have stored it.
        self._enqueue(lambda: self._cache.get(key) or work(), future)
        return future

    def _enqueue(self, work: Work, future: Future[Any]) -> Future[Any]:
        with self._lock:
            closed = self._closed
            if not closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="ovam-reader", daemon=True)
                    self._thread.start()
                self._queue.put((work, future))
        if closed:
            future.set_exception(OvamError(_CLOSING))
        return future

    def _run(self) -> None:
        torch.set_num_threads(self._threads or available_cores())
        while (item := self._queue.get()) is not None:
            work, future = item
            try:
                future.set_result(work())
            except BaseException as error:  # handed to whoever waits, cancelling included; the thread lives on
                future.set_exception(error)
            del item, work, future

    # -- on the reader thread ------------------------------------------------------------------------------------------
    def _loaded_reader(self) -> Reader:
        if self._reader is None:
            backend = self._backend()
            with translate_errors(ModelError):
                self._reader = backend.reader()
        return self._reader

    def _read(
        self, key: CaptureKey, image: LoadedImage, needs: Needs, prompt: str, progress: Progress | None
    ) -> Capture:
        reader = self._loaded_reader()
        with translate_errors():
            capture = reader.capture(image.pixels, needs, prompt=prompt, progress=progress)
        self._cache.put(key, capture)
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
        """The capture of a generated image whose entry is gone, from its record; verified against the image."""
        reader = self._loaded_reader()
        options = dict(record.extra.get("options", {}))
        if options.get("size") is not None:
            options["size"] = tuple(options["size"])
        with translate_errors():
            made = reader.generate(record.prompt, needs, seed=int(record.seed or 0), progress=progress, **options)
        if not _same_image(made.image, image.pixels):
            log.warning("Image %s could not be made again alike; it is read as a received one.", record.sha256[:12])
            backend = self._backend()
            received = _key(backend, image.sha256, needs, "received", prompt)
            return self._cache.get(received) or self._read(received, image, needs, prompt, progress)
        self._cache.put(key, made.capture)
        return made.capture


def available_cores() -> int:
    """CPU cores this process may use: its affinity, a container's quota, and OMP_NUM_THREADS where it is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # No control groups, or of the first version: the affinity stands.
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(wanted))) if wanted.isdigit() and int(wanted) else cores


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


def _same_image(made: np.ndarray, wanted: np.ndarray) -> bool:
    if made.shape != wanted.shape:
        return False
    return bool(np.abs(made.astype(np.int16) - wanted.astype(np.int16)).mean() <= SAME_IMAGE)


def _log_failure(future: Future[Any]) -> None:
    if (error := future.exception()) is not None:
        log.warning("The base model could not be loaded yet: %s", error)
