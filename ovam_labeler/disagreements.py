"""Where two annotators of one task disagree: shown, and nothing is learned from either until somebody decides.

A disagreement ends when one of the two annotations is changed or deleted, when one of them is made the ground truth in the
labeling tool, or when a person says on the corrections page which of them teaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np

from ovam_labeler.errors import BadRequestError
from ovam_labeler.jobs.kinds import REVIEW
from token_store.contract import TokenStore
from token_store.entities import Correction, CorrectionMask, Scope

#: Two masks of one class agree from this IoU on.
AGREE_IOU = 0.7

#: Note of a project: what people decided, ``{"<lower id>:<higher id>:<label>": {"teaches": id, "who", "at"}}``.  It is about
#: corrections, so that a changed annotation, which is another correction, is compared anew.
DECIDED = "disagreements"

#: Whose word a ground truth is.
GROUND_TRUTH = "ground truth"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two annotations of one task that say different things of a class.

    Attributes:
        annotators: of the two, who are never the same person.
        corrections: their ids, the older first.
        iou: 0..1 of their masks; 0.0 where one of them says that the class is not there.
        teaches: which of the two is learned from; None while nobody has decided.
        decided_by: a person's name, or ``"ground truth"``; ``""`` while nobody has decided.
    """

    scope: Scope
    task_id: str
    label: str
    annotators: tuple[str, str]
    corrections: tuple[int, int]
    iou: float
    teaches: int | None = None
    decided_by: str = ""

    @property
    def sentence(self) -> str:
        what = (
            "nothing is learned from either"
            if self.teaches is None
            else f"correction {self.teaches} teaches, by {self.decided_by}"
        )
        return (
            f"{self.scope}, task {self.task_id}: annotators {self.annotators[0] or '?'} and {self.annotators[1] or '?'} "
            f"disagree on '{self.label}' (IoU {self.iou:.2f}, corrections {self.corrections[0]} and "
            f"{self.corrections[1]}; {what})."
        )

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "scope": str(self.scope), "sentence": self.sentence}


def compare(
    corrections: Sequence[Correction], masks: Sequence[CorrectionMask], decided: Mapping[str, Any]
) -> list[Disagreement]:
    """Pairs of different annotators' corrections of one picture whose masks differ, by task, then class.

    A label that only one of the two has worked on is no disagreement: the other has not been asked about it.

    Args:
        corrections: that stand; those without a task are not compared.
        masks: decoded, of these corrections.
        decided: the project's note :data:`DECIDED`.
    """
    by_id = {c.id: c for c in corrections if c.task_id}
    groups: dict[tuple[str, str, str], list[CorrectionMask]] = {}
    for mask in sorted(masks, key=lambda m: m.correction_id):
        if (correction := by_id.get(mask.correction_id)) is not None:
            picture = correction.annotation_id.partition("@")[2]
            groups.setdefault((correction.task_id, picture, mask.label), []).append(mask)
    found = []
    for (task, _, label), same in groups.items():
        for first, second in combinations(same, 2):
            pair = (by_id[first.correction_id], by_id[second.correction_id])
            if pair[0].annotator == pair[1].annotator:
                continue
            agreement = _iou(first.mask, second.mask)
            if agreement < AGREE_IOU:
                ids, who = (pair[0].id, pair[1].id), (pair[0].annotator, pair[1].annotator)
                found.append(
                    Disagreement(pair[0].scope, task, label, who, ids, agreement, *_decision(pair, label, decided))
                )
    return sorted(found, key=lambda row: (row.task_id, row.label, row.corrections))


def disputed(found: Sequence[Disagreement]) -> dict[int, Disagreement]:
    """Corrections that nothing is learned from, with the disagreement that says why: all found are of one class.

    The one that lost a decision; both where nobody has decided, unless the other one lost elsewhere.
    """
    lost = {
        next(number for number in row.corrections if number != row.teaches): row
        for row in found
        if row.teaches is not None
    }
    held = dict(lost)
    for row in found:
        if row.teaches is None and not lost.keys() & set(row.corrections):
            held |= {number: row for number in row.corrections if number not in held}
    return held


def disagreements(
    store: TokenStore, scope: Scope, *, task_id: str | None = None, newest: int | None = None
) -> list[Disagreement]:
    """A project's disagreements, by task, then class.

    Args:
        newest: look at so many tasks with several annotators at most, those annotated last.
    """
    tasks: dict[str, list[Any]] = {}
    for one in store.known_annotations(scope, None if task_id is None else [task_id]):
        if one.state in ("pending", "learned"):
            tasks.setdefault(one.task_id, []).append(one)
    several = [known for known in tasks.values() if len({one.annotator for one in known}) > 1]
    several.sort(key=lambda known: max(one.correction_id for one in known), reverse=True)
    decided = store.get_note(scope, DECIDED)
    found = []
    for known in several[:newest]:
        ids = sorted(one.correction_id for one in known)
        found += compare([store.get_correction(i) for i in ids], store.correction_masks(ids), decided)
    return sorted(found, key=lambda row: (row.task_id, row.label, row.corrections))


def decide(store: TokenStore, correction_id: int, other_id: int, label: str, who: str) -> Disagreement:
    """Have the first of two corrections teach a class, and not the other; the class is judged again.

    Raises:
        NotFoundError: of the store.
        BadRequestError: the two do not disagree on this class (any more).
    """
    correction = store.get_correction(correction_id)
    scope, pair = correction.scope, tuple(sorted((correction_id, other_id)))
    for row in disagreements(store, scope, task_id=correction.task_id):
        if row.label == label and row.corrections == pair:
            choice = {"teaches": correction_id, "who": who, "at": datetime.now(UTC).isoformat(timespec="seconds")}
            store.change_note(scope, DECIDED, {_key(pair, label): choice})

            store.add_job(REVIEW, {"connection": scope.connection, "project": scope.project, "label": label})
            return row
    raise BadRequestError(f"Corrections {pair[0]} and {pair[1]} do not disagree on '{label}' any more.")


def _decision(pair: tuple[Correction, Correction], label: str, decided: Mapping[str, Any]) -> tuple[int | None, str]:
    """(which of the two teaches, by whose word)."""
    choice = decided.get(_key((pair[0].id, pair[1].id), label))
    if isinstance(choice, Mapping):
        return int(choice["teaches"]), str(choice["who"])
    truths = [c.id for c in pair if _is_ground_truth(c)]
    return (truths[0], GROUND_TRUTH) if len(truths) == 1 else (None, "")


def _key(pair: Sequence[int], label: str) -> str:
    return f"{pair[0]}:{pair[1]}:{label}"


def _is_ground_truth(correction: Correction) -> bool:
    annotation = correction.payload.get("annotation")
    return isinstance(annotation, Mapping) and annotation.get("ground_truth") is True


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    """Two empty masks agree; masks of another size do not."""
    if first.shape != second.shape:
        return 0.0
    union = int((first | second).sum())
    return 1.0 if not union else int((first & second).sum()) / union
