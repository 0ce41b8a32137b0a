"""What speaks against a version after it came: no version to go back to, and none to keep as if nothing were known of it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Protocol

import numpy as np

from ovam_labeler.learning_examples import Lesson
from token_store.entities import TokenVersion

#: Figure of a version that was rejected later: why.
DEMOTED = "demoted"

#: So many corrections that it was not learned from are evidence.
ENOUGH = 2


class Readings(Protocol):
    """What :class:`ovam_labeler.trials.Trials` measures on a lesson, IoU in 0..1."""

    def token_iou(self, lesson: Lesson, embedding: np.ndarray) -> float: ...

    def word_iou(self, lesson: Lesson) -> float: ...


def spoken_against(version: TokenVersion, space: str, readings: Readings, lessons: Sequence[Lesson]) -> str:
    """Why corrections speak against a class's first token: on those it was not learned from it does worse than the word.

    Args:
        space: the embedding space of this base model; versions of another one are not read.

    Returns:
        One sentence with the figures; empty where they do not, where they are fewer than :data:`ENOUGH`, where the version was
        proven on others when it came, or was learned from more than one.
    """
    later = [x for x in lessons if x.positive and x.correction_id not in version.source_corrections]
    first = version.state == "unproven" and len(version.source_corrections) == 1
    if not first or len(later) < ENOUGH or version.fingerprint.get("space") != space:
        return ""
    token = fmean(readings.token_iou(lesson, version.embedding) for lesson in later)
    word = fmean(readings.word_iou(lesson) for lesson in later)
    if token >= word:
        return ""
    names = ", ".join(str(x) for x in sorted(lesson.correction_id for lesson in later))
    return f"On corrections {names} its masks come to a mean IoU of {token:.2f}, those of the word to {word:.2f}."
