"""Fits and scores of one class while it is learned: every set of corrections is fitted once, every figure is held back.

A figure is *held back* where the token that is scored was learned without the correction it is scored on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.attention.presence import presence_features, presence_probability
from backends.contract import Attributor, ClassQuery, MaskMethod, Progress, TokenFit, TokenRecipe
from ovam_labeler.agreement import agreement
from ovam_labeler.contradiction import Agreement
from ovam_labeler.domain import Label, ProjectOptions
from ovam_labeler.errors import BadMaskError
from ovam_labeler.learning_examples import Lesson
from ovam_labeler.propose import logits_of, threshold_of

#: An object that covers less than this part of every map cell leaves no trace in the map.
_LEAST_COVER = 0.1


#: Fits remembered in a process: the next correction of a class asks for many of the same again.
REMEMBERED = 1024


class FitMemory:
    """The last fits of a process, by embedding space, class, recipe and corrections.  Thread-safe.

    A correction never changes under its id (a changed annotation is another one), so neither does what is learned from it.
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._fits: OrderedDict[Hashable, TokenFit] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> TokenFit | None:
        with self._lock:
            if key in self._fits:
                self._fits.move_to_end(key)
            return self._fits.get(key)

    def put(self, key: Hashable, fit: TokenFit) -> None:
        with self._lock:
            self._fits[key] = fit
            while len(self._fits) > self._size:
                self._fits.popitem(last=False)


class Trials:
    """What is fixed while one class is learned, and the fits made so far.  Used by one thread."""

    def __init__(
        self,
        attributor: Attributor,
        method: MaskMethod,
        label: Label,
        word: ClassQuery,
        options: ProjectOptions,
        progress: Progress | None = None,
        expected: int = 1,
        memory: FitMemory | None = None,
    ) -> None:
        """Args: expected number of fits, for the progress bar."""
        calibration = attributor.calibration
        self.attributor, self.method, self.label = attributor, method, label
        self.known = attributor.knows(label.name)
        self.recipe: TokenRecipe = calibration.word_recipe if self.known else calibration.token_recipe
        self._word = word
        self._word_cut, self._token_cut = (
            options.threshold if options.threshold is not None else threshold_of(calibration, source)
            for source in ("word", "token")
        )
        self._progress, self._expected = progress, max(expected, 1)
        self._memory = memory or FitMemory()
        self._made = 0
        self._word_ious: dict[int, float] = {}

    def fit(self, lessons: Sequence[Lesson], what: str = "Judging") -> TokenFit:
        """The token learned from these lessons together (Eq. 6 over several images)."""
        ids = frozenset(lesson.correction_id for lesson in lessons)
        key = (self.attributor.fingerprint.space, self.label.name, self.recipe, ids)
        fit = self._memory.get(key)
        if fit is None:
            fit = self.attributor.learn(
                [lesson.example() for lesson in lessons],
                self.recipe,
                label=self.label.name,
                progress=self._share(f"{what} '{self.label.name}'"),
            )
            self._memory.put(key, fit)
            self._made += 1
        return fit

    def word_iou(self, lesson: Lesson) -> float:
        """Read once: figures, evidence and what speaks against a first token ask for the same."""
        if lesson.correction_id not in self._word_ious:
            self._word_ious[lesson.correction_id] = self._iou(lesson, self._word, self._word_cut)
        return self._word_ious[lesson.correction_id]

    def token_iou(self, lesson: Lesson, embedding: np.ndarray) -> float:
        return self._iou(lesson, self.attributor.token(embedding), self._token_cut)

    def held_back(self, lesson: Lesson, lessons: Sequence[Lesson]) -> float:
        """IoU on a lesson of the token learned from the others; of the word where there is no other."""
        rest = [other for other in lessons if other.correction_id != lesson.correction_id]
        if not any(other.positive for other in rest):
            return self.word_iou(lesson)
        return self.token_iou(lesson, self.fit(rest).embedding)

    def agreement(self, positives: Sequence[Lesson]) -> Agreement:
        """Whether the lessons show the same thing, by the tokens learned from each alone: :func:`ovam_labeler.agreement.agreement`."""
        tokens = [self.attributor.token(self.fit([lesson]).embedding) for lesson in positives]
        pictures = [(lesson.capture, lesson.target, lesson.weight) for lesson in positives]
        return agreement(self.attributor, self.method, pictures, tokens)

    def says_present(self, lesson: Lesson, embedding: np.ndarray | None) -> bool:
        """Whether a token (None = the word), asked for alone, would be judged present in a lesson's picture."""
        calibration = self.attributor.calibration
        query = self._word if embedding is None else self.attributor.token(embedding)
        weights = calibration.word_presence if embedding is None else calibration.token_presence
        with torch.no_grad():
            maps = self.method.maps(self.attributor, lesson.capture, [query]).detach().float().cpu()
            logits = logits_of(self.attributor, lesson.capture, [query])
        (features,) = presence_features(maps, logits)
        return presence_probability(features, weights) >= calibration.presence_cut

    def check_size(self, lesson: Lesson) -> None:
        """Raises BadMaskError: the object is so small that no map cell can hold it."""
        with torch.no_grad():
            height, width = self.method.maps(self.attributor, lesson.capture, [self._word]).shape[-2:]
        target = torch.from_numpy(lesson.target * (lesson.weight > 0))[None, None]
        cover = float(torch.nn.functional.adaptive_avg_pool2d(target, (height, width)).max())
        if cover < _LEAST_COVER:
            raise BadMaskError(
                f"The mask of '{self.label.name}' covers at most {100 * cover:.1f} % of a cell of the base model's "
                f"{width}x{height} map; at least {100 * _LEAST_COVER:.0f} % is needed to learn from it."
            )

    def _iou(self, lesson: Lesson, query: ClassQuery, cut: float) -> float:
        with torch.no_grad():
            heat = self.method.maps(self.attributor, lesson.capture, [query])[0]
        height, width = lesson.target.shape
        mask = relative_map(heat, (height, width)) >= cut
        truth, known = lesson.target >= 0.5, lesson.weight > 0
        union = ((mask | truth) & known).sum()
        return float((mask & truth & known).sum() / union) if union else 0.0

    def _share(self, what: str) -> Progress | None:
        """A callback for the next fit's part of one bar."""
        if self._progress is None:
            return None
        outer, done = self._progress, self._made
        return lambda fraction, message: outer(
            min(1.0, (done + fraction) / self._expected), f"{what}: {message}" if message else what
        )
