"""Signatures of the application's services, as protocols: what tools, CLI and pages may call.

The implementations live in ``image_source``, ``capture_cache``, ``inference``, ``vocabulary``, ``propose``, ``learn``,
``promotion`` and ``jobs``; ``application.build_application`` joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

from backends.contract import Backend, Capture, Needs, Progress
from ovam_labeler.capture_cache import CaptureCache
from ovam_labeler.domain import Label, LearnResult, LoadedImage, ProjectOptions, Proposal
from ovam_labeler.jobs.contract import JobEngine, JobHandler
from ovam_labeler.settings import Settings
from token_store.contract import TokenStore
from token_store.entities import Correction, Job, Scope


class Inference(Protocol):
    """Gives captures.  Equal work in flight is joined by cache key; UNet passes run on one worker thread."""

    def submit(self, image: LoadedImage, needs: Needs, *, prompt: str = "") -> Future[Capture]:
        """A cached capture at once, else a read.  A generated image known by its sha256 is answered from its cached
        capture, or made again exactly from its recorded seed and prompt; never re-read as a received one."""

    def generate(
        self, prompt: str, *, seed: int, needs: Needs, progress: Progress | None = None, **options: Any
    ) -> tuple[LoadedImage, bytes, Capture]:
        """Generate an image, cache its capture, record it in the store.  Returns (image, PNG bytes, capture)."""

    def warm_up(self) -> None:
        """Load the base model in the background."""

    def close(self) -> None: ...


class Proposer(Protocol):
    def propose(
        self,
        image: LoadedImage,
        labels: Sequence[Label],
        scope: Scope,
        options: ProjectOptions,
        *,
        prompt: str = "",
        progress: Progress | None = None,
    ) -> list[Proposal]:
        """One proposal a label, in order; absent ones have an empty mask and ``present=False``."""

    def model_version(self, labels: Sequence[Label], scope: Scope, options: ProjectOptions) -> str:
        """The one string of /setup and /predict: ``ovam-<base>-<hash>`` over everything that shapes this project's
        masks (active tokens, words, method, thresholds, refiner, base model).  Milliseconds; never loads a model."""


class Learner(Protocol):
    def learn_mask(
        self,
        image: LoadedImage,
        mask: np.ndarray,
        label: str,
        scope: Scope,
        *,
        created_by: str,
        progress: Progress | None = None,
    ) -> LearnResult:
        """Learn from one mask given directly (CLI).  ``mask`` bool (H, W) of the image's size.

        The mask is stored as a correction first, so that later corrections of the class learn from it as well.

        Raises:
            BadMaskError: wrong size, empty, or full mask.
        """

    def learn_correction(self, correction_id: int, *, progress: Progress | None = None) -> list[LearnResult]:
        """Learn every label a stored correction teaches (called by the worker; idempotent).  A class's token is fitted
        on its recent positive corrections together; the promotion rule then decides what is active."""

    def review_class(self, scope: Scope, label: str, *, progress: Progress | None = None) -> LearnResult | None:
        """Judge a class again by the corrections that remain, after one was retracted; idempotent.

        The token they teach becomes the active one.  Where none is left, the active token is withdrawn, and the result
        names it.  None where nothing was changed: no token to withdraw, or learning is off or paused and some are left.
        """


class CorrectionDecoder(Protocol):
    """What a labeling tool offers the learner: fetch the image of a stored correction and decode its truths."""

    def image_of(self, correction: Correction) -> tuple[LoadedImage, str]:
        """(image, prompt of the task or "").  Raises FetchError (the job is retried) or BadImageError (it is not)."""

    def truths_of(self, correction: Correction, image: LoadedImage) -> tuple[list[Any], list[str]]:
        """(list of domain.Truth, one sentence per skipped region)."""


class Application(Protocol):
    """Everything joined; made by ``application.build_application(settings)``."""

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> TokenStore: ...

    @property
    def cache(self) -> CaptureCache: ...

    @property
    def inference(self) -> Inference: ...

    @property
    def proposer(self) -> Proposer: ...

    @property
    def learner(self) -> Learner: ...

    @property
    def decoders(self) -> Mapping[str, CorrectionDecoder]: ...

    @property
    def jobs(self) -> JobEngine: ...

    def backend(self) -> Backend:
        """The base model, loaded at the first call.  Raises ModelError with what to type."""

    def add_handler(self, kind: str, handler: JobHandler) -> None:
        """Have another kind of job done by this process's worker; before the worker is started."""

    def on_learned(self, listener: Callable[[Job, list[LearnResult]], None]) -> None:
        """Have a function called on the worker thread after each learned correction."""

    def start_worker(self) -> None:
        """Start the job worker thread (requeues interrupted jobs first)."""

    def close(self) -> None: ...
