"""Correction -> token -> verdict: what runs when a human has drawn a mask (Eq. 6-7, then the promotion rule)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from backends.contract import Backend, Capture, Progress
from ovam_labeler.class_learning import ClassLearning
from ovam_labeler.direct import TOOL as DIRECT
from ovam_labeler.direct import DirectDecoder
from ovam_labeler.domain import Label, LearnResult, LoadedImage, Truth
from ovam_labeler.errors import BadImageError, BadMaskError, BadRequestError
from ovam_labeler.inference import InferenceService
from ovam_labeler.learning_examples import Gathered, Lessons
from ovam_labeler.options import project_options
from ovam_labeler.propose import find_method
from ovam_labeler.services import CorrectionDecoder
from ovam_labeler.settings import Settings
from ovam_labeler.translate import translate_errors
from ovam_labeler.truth import build_truths
from ovam_labeler.vocabulary import Vocabulary
from token_store.contract import TokenStore
from token_store.entities import Correction, CorrectionMask, ImageRecord, NewCorrection, Scope

log = logging.getLogger(__name__)

#: Part of the progress bar that reading the image takes.
_READING = 0.4


class LearnService:
    """Implements :class:`ovam_labeler.services.Learner`.  Thread-safe; equal work done twice gives one version."""

    def __init__(
        self,
        settings: Settings,
        store: TokenStore,
        backend: Callable[[], Backend],
        inference: InferenceService,
        vocabulary: Vocabulary,
        decoders: Mapping[str, CorrectionDecoder],
        direct: DirectDecoder,
    ) -> None:
        self._settings = settings
        self._store = store
        self._backend = backend
        self._inference = inference
        self._direct = direct
        self._lessons = Lessons(store, inference, decoders)
        self._classes = ClassLearning(store, backend, vocabulary)

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
        """See :meth:`ovam_labeler.services.Learner.learn_mask`.

        A newer mask of the same label on the same image replaces the older one.
        """
        size = (image.height, image.width)
        if mask.shape != size:
            raise BadMaskError(f"The mask has shape {mask.shape}; the image's (height, width) is {size}.")
        mask = mask.astype(bool)
        if not mask.any():
            raise BadMaskError("The mask is empty; mark at least one pixel of the class.")
        if mask.all():
            raise BadMaskError("The mask covers the whole picture, which leaves no background to learn from.")
        (truth,) = build_truths(size, [(label, mask)], [label])
        self._direct.keep(image)
        identity = hashlib.sha256(f"{label}\0{image.sha256}".encode("utf-8", "surrogatepass")).hexdigest()
        new = NewCorrection(
            scope=scope,
            annotation_id=f"direct-{identity[:32]}",
            updated_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            task_id="",
            image_ref=f"sha256:{image.sha256}",
            payload={"tool": DIRECT, "image_sha256": image.sha256},
            labels=(label,),
            annotator=created_by,
        )
        with translate_errors():
            correction, _, _ = self._store.add_correction(new, job_kind=None)
            correction = self._record(correction, image, "", [truth])
        (result,) = self._learn(correction, image, "", [truth], created_by, progress)
        return result

    def learn_correction(self, correction_id: int, *, progress: Progress | None = None) -> list[LearnResult]:
        """See :meth:`ovam_labeler.services.Learner.learn_correction`.

        One result a label that was learned; the correction's note says what was not and why.  A negative is kept as
        evidence, and teaches at once where the class has positive corrections.

        Raises:
            FetchError, StorageFullError: try again later; the correction stays pending.
            OvamError: nothing could be learned; the correction is then ``failed`` with the sentence as its note.
        """
        with translate_errors():
            correction = self._store.get_correction(correction_id)
            if correction.state in ("retracted", "ignored"):
                return []
            try:
                if not project_options(self._settings, self._store.get_project_options(correction.scope)).learning:
                    self._store.set_correction_state(correction.id, "ignored", note="Learning is off for this project.")
                    return []
                decoder = self._lessons.decoder_of(correction)
                image, prompt = decoder.image_of(correction)
                truths, notes = decoder.truths_of(correction, image)
                correction = self._record(correction, image, prompt, truths)
                if not truths:
                    raise BadMaskError(" ".join(notes) or "The correction holds no region that can be learned.")
                return self._learn(correction, image, prompt, truths, correction.annotator, progress, notes)
            except (BadRequestError, BadImageError) as error:
                self._store.set_correction_state(correction.id, "failed", note=str(error))
                raise

    def review_class(self, scope: Scope, label: str, *, progress: Progress | None = None) -> LearnResult | None:
        """See :meth:`ovam_labeler.services.Learner.review_class`."""
        with translate_errors():
            options = project_options(self._settings, self._store.get_project_options(scope))
            learning = options.learning and options.wants(label) and label not in self._store.paused_classes(scope)
            method = find_method(options.method)
            needs = method.needs(self._backend().attributor)
            found = self._lessons.of_class(scope, label, needs)
            disputed = self._dispute(scope, label, found)
            if not found.teaches:
                if found.held:
                    return disputed
                return self._classes.withdraw(scope, label, "Every correction it was learned from was withdrawn.")
            if not learning:
                return None
            return self._classes.learn(
                scope, Label(label), found.lessons, method, options, newest=None, created_by="review", progress=progress
            )

    def _dispute(self, scope: Scope, label: str, found: Gathered) -> LearnResult | None:
        """Have the active token go, or be judged again, where it was learned from what annotators disagree on now.

        Returns what became of it where it went.
        """
        if not found.held:
            return None
        why = next(iter(found.held.values())).sentence
        return self._classes.dispute(scope, label, found.held.keys(), why, nothing_left=not found.teaches)

    def _record(self, correction: Correction, image: LoadedImage, prompt: str, truths: list[Truth]) -> Correction:
        """Store what was decoded; after this the image itself is not needed while its capture is cached."""
        self._store.put_image(
            ImageRecord(image.sha256, origin="received", width=image.width, height=image.height, prompt=prompt)
        )
        self._store.put_correction_masks(
            [CorrectionMask(correction.id, t.label, t.kind, t.mask, t.ignore) for t in truths]
        )
        self._store.set_correction_state(
            correction.id, correction.state, note=correction.note, image_sha256=image.sha256
        )
        return replace(correction, image_sha256=image.sha256)

    def _learn(
        self,
        correction: Correction,
        image: LoadedImage,
        prompt: str,
        truths: list[Truth],
        created_by: str,
        progress: Progress | None,
        notes: list[str] | None = None,
    ) -> list[LearnResult]:
        """Learn each label of a recorded correction and end it as learned, or as failed where no label could be."""
        report = progress or (lambda fraction, message: None)
        scope = correction.scope
        options = project_options(self._settings, self._store.get_project_options(scope))
        method = find_method(options.method)
        needs = method.needs(self._backend().attributor)
        capture: Capture = self._inference.submit(
            image, needs, prompt=prompt, progress=lambda f, m: report(f * _READING, m)
        ).result()
        paused = set(self._store.paused_classes(scope))
        sentences = list(notes or [])
        results: list[LearnResult] = []
        refused: list[BadRequestError] = []
        for position, truth in enumerate(truths):
            start, width = _READING + (1 - _READING) * position / len(truths), (1 - _READING) / len(truths)

            def on_progress(fraction: float, message: str, start: float = start, width: float = width) -> None:
                report(start + width * fraction, message)

            if truth.label in paused:
                sentences.append(f"Learning of '{truth.label}' is paused; it is kept as evidence.")
                continue
            if not options.wants(truth.label):
                sentences.append(
                    f"'{truth.label}' is not among the project's classes to learn; it is kept as evidence."
                )
                continue
            try:
                with translate_errors():
                    found = self._lessons.of_class(scope, truth.label, needs, correction, capture)
                    disputed = self._dispute(scope, truth.label, found)
                    held = found.held.get(correction.id)
                    if held is not None:
                        sentences.append(f"'{truth.label}' is held back: {held.sentence}")
                    if not found.teaches:
                        results += [disputed] if disputed is not None else []
                        if held is None:
                            sentences.append(f"'{truth.label}' was said not to be here; it is kept as evidence.")
                        continue
                    result = self._classes.learn(
                        scope,
                        Label(truth.label),
                        found.lessons,
                        method,
                        options,
                        # Without what is held back the class is judged again by the others.
                        newest=correction.id if held is None else None,
                        created_by=created_by,
                        progress=on_progress,
                    )
            except BadRequestError as error:
                refused.append(error)
                sentences.append(f"'{truth.label}' was not learned: {error}")
                continue
            results.append(result)
            sentences.append(f"'{truth.label}' version {result.version}: {result.reason}")
        if refused and not results:
            self._store.set_correction_state(correction.id, "failed", note=" ".join(sentences))
            raise refused[0]
        self._store.set_correction_state(correction.id, "learned", note=" ".join(sentences))
        report(1.0, "Learned" if results else "Kept as evidence")
        return results
