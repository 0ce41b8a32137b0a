"""Learns one class from its lessons: fit, leave-one-out evidence against the word, verdict, one stored version."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.contract import Attributor, Backend, ClassQuery, MaskMethod, Progress, TokenFit, TokenRecipe
from ovam_labeler.domain import Label, LearnResult, ProjectOptions
from ovam_labeler.errors import BadMaskError
from ovam_labeler.learning_examples import Lesson
from ovam_labeler.promotion import Evidence, Verdict, judge
from ovam_labeler.propose import threshold_of
from ovam_labeler.vocabulary import Vocabulary
from token_store.contract import NotFoundError, TokenStore
from token_store.entities import NewTokenVersion, Scope, TokenVersion

#: The alias that predictions use.
ACTIVE = "active"

#: Most folds of the leave-one-out evidence, the newest corrections held out.
MAX_FOLDS = 4

#: An object that covers less than this part of every map cell leaves no trace in the map.
_LEAST_COVER = 0.1


@dataclass(frozen=True, slots=True)
class _Task:
    """What is fixed while one class is learned."""

    attributor: Attributor
    method: MaskMethod
    label: Label
    recipe: TokenRecipe
    word: ClassQuery
    word_cut: float
    token_cut: float

    def fit(self, lessons: Sequence[Lesson], progress: Progress | None) -> TokenFit:
        return self.attributor.learn(
            [lesson.example() for lesson in lessons], self.recipe, label=self.label.name, progress=progress
        )

    def word_iou(self, lesson: Lesson) -> float:
        return self._iou(lesson, self.word, self.word_cut)

    def token_iou(self, lesson: Lesson, embedding: np.ndarray) -> float:
        return self._iou(lesson, self.attributor.token(embedding), self.token_cut)

    def _iou(self, lesson: Lesson, query: ClassQuery, cut: float) -> float:
        with torch.no_grad():
            heat = self.method.maps(self.attributor, lesson.capture, [query])[0]
        height, width = lesson.target.shape
        mask = relative_map(heat, (height, width)) >= cut
        truth, known = lesson.target >= 0.5, lesson.weight > 0
        union = ((mask | truth) & known).sum()
        return float((mask & truth & known).sum() / union) if union else 0.0


class ClassLearning:
    """Fits, judges and stores.  Thread-safe."""

    def __init__(self, store: TokenStore, backend: Callable[[], Backend], vocabulary: Vocabulary) -> None:
        self._store = store
        self._backend = backend
        self._vocabulary = vocabulary

    def learn(
        self,
        scope: Scope,
        label: Label,
        lessons: Sequence[Lesson],
        method: MaskMethod,
        options: ProjectOptions,
        *,
        created_by: str,
        progress: Progress | None = None,
    ) -> LearnResult:
        """Learn a class from lessons of which at least one is positive.

        The same lessons in the same base model give the version that is already there, not another one.

        Raises:
            BadMaskError: no lesson has background, or the object is too small for the map.
            BackendError: the optimisation refuses the examples.
            StoreError: of the store.
        """
        attributor = self._backend().attributor
        positives = [lesson for lesson in lessons if lesson.positive]
        sources = tuple(sorted(lesson.correction_id for lesson in lessons))
        if (done := self._already(scope, label.name, sources, attributor)) is not None:
            return done
        if not any(lesson.has_background() for lesson in lessons):
            raise BadMaskError(
                f"Nothing is known to be outside '{label.name}'; mark other labels too, or declare the annotation exhaustive."
            )
        known = attributor.knows(label.name)
        calibration = attributor.calibration
        task = _Task(
            attributor,
            method,
            label,
            calibration.word_recipe if known else calibration.token_recipe,
            self._vocabulary.word(label),
            options.threshold if options.threshold is not None else threshold_of(calibration, "word"),
            options.threshold if options.threshold is not None else threshold_of(calibration, "token"),
        )
        _check_size(task, positives[0])
        began = time.perf_counter()
        folds = positives[:MAX_FOLDS] if len(positives) > 1 else []
        report = _shares(progress, 1 + len(folds))
        fit = task.fit(lessons, report(0, f"Learning '{label.name}'"))
        evidence = self._evidence(task, lessons, folds, report)
        verdict = judge(evidence, known=known)
        parent = self._active(scope, label.name)
        metrics: dict[str, Any] = {
            "train_iou": fit.train_iou,
            "losses": list(fit.losses),
            "best_epoch": fit.best_epoch,
            "seconds": time.perf_counter() - began,
            "examples": len(positives),
            "negatives": len(lessons) - len(positives),
            "known_word": known,
            "word_iou": fmean(task.word_iou(lesson) for lesson in positives),
            "reason": verdict.reason,
            "libraries": _libraries(),
        }
        if evidence is not None:
            metrics["held_out"] = {"token": list(evidence.token), "word": list(evidence.word)}
        if parent is not None and parent.fingerprint.get("space") == attributor.fingerprint.space:
            metrics["parent_iou"] = task.token_iou(positives[0], parent.embedding)
        version = self._keep(scope, label.name, fit, task, metrics, sources, verdict, parent, created_by)
        return LearnResult(scope, label.name, version.number, verdict.use_token, verdict.reason, version.metrics)

    def _evidence(
        self,
        task: _Task,
        lessons: Sequence[Lesson],
        folds: Sequence[Lesson],
        report: Callable[[int, str], Progress | None],
    ) -> Evidence | None:
        """Each fold's correction held out, the token learned from all the others."""
        token, word = [], []
        for number, held_out in enumerate(folds, start=1):
            rest = [lesson for lesson in lessons if lesson.correction_id != held_out.correction_id]
            fit = task.fit(rest, report(number, f"Judging '{task.label.name}'"))
            token.append(task.token_iou(held_out, fit.embedding))
            word.append(task.word_iou(held_out))
        return Evidence(tuple(token), tuple(word)) if folds else None

    def _keep(
        self,
        scope: Scope,
        name: str,
        fit: TokenFit,
        task: _Task,
        metrics: Mapping[str, Any],
        sources: tuple[int, ...],
        verdict: Verdict,
        parent: TokenVersion | None,
        created_by: str,
    ) -> TokenVersion:
        fingerprint = task.attributor.fingerprint
        version = self._store.add_version(
            scope,
            name,
            NewTokenVersion(
                fingerprint={
                    "space": fingerprint.space,
                    "model": fingerprint.model,
                    "settings": {**fingerprint.settings, "method": task.method.name},
                },
                embedding=fit.embedding,
                recipe=asdict(task.recipe),
                metrics=metrics,
                source_corrections=sources,
                parent_version=parent.number if parent is not None else None,
                created_by=created_by,
                state=verdict.state,
            ),
            aliases=(ACTIVE,) if verdict.use_token else (),
        )
        if not verdict.use_token and parent is not None:
            # The older token was judged by the same evidence: a token of this class does worse than its word.
            self._store.set_alias(scope, name, ACTIVE, None, who=created_by, why=verdict.reason)
        return version

    def _already(self, scope: Scope, name: str, sources: tuple[int, ...], attributor: Attributor) -> LearnResult | None:
        """The result of the same work done before (a job that ran twice)."""
        for version in reversed(self._store.list_versions(scope, name)):
            if (
                tuple(sorted(version.source_corrections)) == sources
                and version.fingerprint.get("space") == attributor.fingerprint.space
            ):
                reason = str(version.metrics.get("reason", ""))
                active = self._active(scope, name)
                if version.state == "rejected" and active is not None and active.number == version.parent_version:
                    # The run before ended between storing the verdict and acting on it.
                    self._store.set_alias(scope, name, ACTIVE, None, who=version.created_by, why=reason)
                return LearnResult(scope, name, version.number, ACTIVE in version.aliases, reason, version.metrics)
        return None

    def _active(self, scope: Scope, name: str) -> TokenVersion | None:
        try:
            return self._store.get_version(scope, name, ACTIVE)
        except NotFoundError:
            return None


def _check_size(task: _Task, lesson: Lesson) -> None:
    """Refuse an object that no map cell can hold."""
    with torch.no_grad():
        height, width = task.method.maps(task.attributor, lesson.capture, [task.word]).shape[-2:]
    target = torch.from_numpy(lesson.target * (lesson.weight > 0))[None, None]
    cover = float(torch.nn.functional.adaptive_avg_pool2d(target, (height, width)).max())
    if cover < _LEAST_COVER:
        raise BadMaskError(
            f"The mask of '{task.label.name}' covers at most {100 * cover:.1f} % of a cell of the base model's "
            f"{width}x{height} map; at least {100 * _LEAST_COVER:.0f} % is needed to learn from it."
        )


def _shares(progress: Progress | None, parts: int) -> Callable[[int, str], Progress | None]:
    """Callbacks for the equal parts of one bar."""

    def part(number: int, what: str) -> Progress | None:
        if progress is None:
            return None
        return lambda fraction, message: progress(
            (number + fraction) / parts, f"{what}: {message}" if message else what
        )

    return part


def _libraries() -> dict[str, str]:
    found = {}
    for name in ("ovam-labeler", "torch", "diffusers", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
