"""Joins the rooms: settings -> one :class:`OvamApplication` with store, inference, proposer, learner and jobs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from backends.contract import Backend
from backends.discovery import load_backend
from ovam_labeler.capture_cache import CaptureCache
from ovam_labeler.direct import TOOL as DIRECT
from ovam_labeler.direct import DirectDecoder
from ovam_labeler.domain import LearnResult
from ovam_labeler.errors import ModelError, OvamError
from ovam_labeler.inference import InferenceService
from ovam_labeler.jobs.contract import JobEngine, JobHandler
from ovam_labeler.jobs.handlers import LearnHandler, ReviewHandler
from ovam_labeler.jobs.kinds import GENERATE, LEARN, REVIEW
from ovam_labeler.jobs.local import LocalJobs
from ovam_labeler.learn import LearnService
from ovam_labeler.pending_images import PendingImages
from ovam_labeler.propose import ProposeService
from ovam_labeler.services import CorrectionDecoder
from ovam_labeler.settings import Settings
from ovam_labeler.translate import translate_errors
from ovam_labeler.vocabulary import Vocabulary
from token_store.contract import TokenStore
from token_store.entities import Job
from token_store.sqlalchemy_store import open_store

log = logging.getLogger(__name__)

#: ``load_backend`` of :mod:`backends.discovery`, or a stand-in of the same form.
BackendLoader = Callable[..., Backend]

#: Folder of the workers' lock files, below the data folder.
WORKERS = "workers"

#: Seconds that closing waits for a job that runs; it is queued again by the next start otherwise.
_STOP_SECONDS = 10.0


class OvamApplication:
    """Implements :class:`ovam_labeler.services.Application`.  Use as a context manager, or call :meth:`close`."""

    def __init__(
        self,
        settings: Settings,
        store: TokenStore,
        decoders: Mapping[str, CorrectionDecoder],
        loader: BackendLoader,
    ) -> None:
        self.settings = settings
        self.store = store
        direct = DirectDecoder(settings.data_dir / "images", store)
        self.decoders: dict[str, CorrectionDecoder] = {DIRECT: direct, **decoders}
        self._loader = loader
        self._backend: Backend | None = None
        self._loading = threading.Lock()
        self._listeners: list[Callable[[Job, list[LearnResult]], None]] = []
        self.cache = CaptureCache(settings.data_dir / "captures", settings.cache_max_bytes, PendingImages(store))
        self.inference = InferenceService(self.backend, self.cache, store, settings.threads, settings.cache_preset)
        self.vocabulary = Vocabulary(store, self.backend)
        self.proposer = ProposeService(settings, self.backend, self.inference, self.vocabulary)
        self.learner = LearnService(
            settings, store, self.backend, self.inference, self.vocabulary, self.decoders, direct
        )
        self._handlers: dict[str, JobHandler] = {
            LEARN: LearnHandler(self.learner, store, self._learned),
            REVIEW: ReviewHandler(self.learner, self._learned),
        }
        self.jobs: JobEngine = LocalJobs(store, self._handlers, settings.data_dir / WORKERS, background=(GENERATE,))

    def backend(self) -> Backend:
        """The base model: text encoder and key projections at the first call, the UNet only where an image is read.

        Raises:
            ModelError: it cannot be loaded; says what to type.  The next call tries again.
        """
        with self._loading:
            if self._backend is None:
                with translate_errors(ModelError):
                    self._backend = self._loader(
                        self.settings.model, self.settings.backend, self.settings.device, _log_loading
                    )
            return self._backend

    def start_worker(self) -> None:
        with translate_errors():
            self.jobs.start()

    def add_handler(self, kind: str, handler: JobHandler) -> None:
        """Have another kind of job done by this process's worker; before :meth:`start_worker`."""
        self._handlers[kind] = handler

    def on_learned(self, listener: Callable[[Job, list[LearnResult]], None]) -> None:
        """Have a function called on the worker thread after each learned correction, e.g. to predict again."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Stop the worker and the reader, close the store.  A job that still runs is queued again by the next start."""
        self.jobs.stop(_STOP_SECONDS)
        self.inference.close()
        self.store.close()

    def __enter__(self) -> OvamApplication:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _learned(self, job: Job, results: list[LearnResult]) -> None:
        for listener in self._listeners:
            try:
                listener(job, results)
            except Exception:
                log.exception("A listener failed after job %d", job.id)


def build_application(
    settings: Settings,
    decoders: Mapping[str, CorrectionDecoder] | None = None,
    *,
    loader: BackendLoader = load_backend,
) -> OvamApplication:
    """Make the application; an empty or missing data folder is initialised.  No model is loaded yet.

    Args:
        decoders: by the ``tool`` of a correction's payload; ``direct`` is always there.  More may be added to
            ``application.decoders`` before the worker is started.
        loader: how base models are loaded.

    Raises:
        OvamError: the data folder cannot be made or the database cannot be opened; says what to do.
    """
    try:
        with translate_errors():
            settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OvamError(
            f"The data folder {settings.data_dir} cannot be made ({error.strerror}); set OVAM_DATA_DIR to one that can."
        ) from error
    with translate_errors():
        store = open_store(settings.resolved_database_url())
        for problem in store.check(quick=True):
            log.warning("%s", problem)
    return OvamApplication(settings, store, decoders or {}, loader)


def _log_loading(fraction: float, sentence: str) -> None:
    log.info("%s (%.0f %%)", sentence, 100 * fraction)


__all__ = ["OvamApplication", "build_application", "translate_errors"]
