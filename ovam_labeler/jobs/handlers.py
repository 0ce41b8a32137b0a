"""What each kind of job does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backends.contract import Progress
from ovam_labeler.domain import LearnResult
from ovam_labeler.errors import OvamError
from ovam_labeler.services import Learner
from token_store.contract import TokenStore
from token_store.entities import Job, Scope


class LearnHandler:
    """Job ``learn``: ``{"correction_id": int, ...}`` -> the tokens of that correction's labels."""

    def __init__(self, learner: Learner, store: TokenStore, learned: Callable[[Job, list[LearnResult]], None]) -> None:
        """Args: learned is told after each success (for re-prediction); it must not raise."""
        self._learner = learner
        self._store = store
        self._learned = learned

    def run(self, job: Job, progress: Progress) -> Mapping[str, Any]:
        results = self._learner.learn_correction(_correction_id(job), progress=progress)
        self._learned(job, results)
        return {
            "learned": [
                {
                    "label": r.label,
                    "version": r.version,
                    "active": r.active,
                    "reason": r.reason,
                    "train_iou": r.metrics.get("train_iou"),
                    "word_iou": r.metrics.get("word_iou"),
                    "seconds": r.metrics.get("seconds"),
                }
                for r in results
            ]
        }

    def gave_up(self, job: Job, sentence: str) -> None:
        self._store.set_correction_state(_correction_id(job), "failed", note=sentence)


class ReviewHandler:
    """Job ``review``: ``{"connection", "project", "label"}`` -> the class as the remaining corrections teach it."""

    def __init__(self, learner: Learner, learned: Callable[[Job, list[LearnResult]], None]) -> None:
        """Args: learned is told after each success (for re-prediction); it must not raise."""
        self._learner = learner
        self._learned = learned

    def run(self, job: Job, progress: Progress) -> Mapping[str, Any]:
        connection, project, label = (job.payload.get(key) for key in ("connection", "project", "label"))
        if not (isinstance(connection, str) and isinstance(project, str) and isinstance(label, str)):
            raise OvamError(f"Job {job.id} names no class.")
        result = self._learner.review_class(Scope(connection, project), label, progress=progress)
        self._learned(job, [] if result is None else [result])
        if result is None:
            return {"label": label, "version": None}
        return {"label": label, "version": result.version, "active": result.active, "reason": result.reason}

    def gave_up(self, job: Job, sentence: str) -> None:
        """The job itself keeps the sentence."""


def _correction_id(job: Job) -> int:
    value = job.payload.get("correction_id")
    if not isinstance(value, int):
        raise OvamError(f"Job {job.id} names no correction.")
    return value
