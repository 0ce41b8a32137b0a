"""Where two annotators of one task disagree: shown, so that a lead can decide, and never averaged in silence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from token_store.contract import TokenStore
from token_store.entities import Scope

#: Two masks of one class agree from this IoU on.
AGREE_IOU = 0.7


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two annotations of one task that say different things of a class.

    Attributes:
        corrections: their ids, the older first.
        iou: 0..1 of their masks; 0.0 where one of them says that the class is not there.
    """

    scope: Scope
    task_id: str
    label: str
    annotators: tuple[str, str]
    corrections: tuple[int, int]
    iou: float

    @property
    def sentence(self) -> str:
        return (
            f"{self.scope}, task {self.task_id}: annotators {self.annotators[0] or '?'} and {self.annotators[1] or '?'} "
            f"disagree on '{self.label}' (IoU {self.iou:.2f}, corrections {self.corrections[0]} and {self.corrections[1]})."
        )

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "scope": str(self.scope), "sentence": self.sentence}


def disagreements(store: TokenStore, scope: Scope, *, task_id: str | None = None) -> list[Disagreement]:
    """Pairs of standing annotations of one task whose decoded masks differ, by task, then class.

    A label that only one of the two has worked on is no disagreement: the other has not been asked about it.
    """
    known = store.known_annotations(scope, None if task_id is None else [task_id])
    tasks: dict[tuple[str, str], list[int]] = {}
    who = {}
    for one in known:
        if one.state in ("pending", "learned"):
            picture = one.annotation_id.partition("@")[2]
            tasks.setdefault((one.task_id, picture), []).append(one.correction_id)
            who[one.correction_id] = one.annotator
    found = []
    for (task, _), ids in sorted(tasks.items()):
        if len(ids) < 2:
            continue
        masks = store.correction_masks(sorted(ids))
        for first, second in combinations(masks, 2):
            if first.label != second.label or first.correction_id == second.correction_id:
                continue
            agreement = _iou(first.mask, second.mask)
            if agreement < AGREE_IOU:
                pair = (first.correction_id, second.correction_id)
                annotators = (who[pair[0]], who[pair[1]])
                found.append(Disagreement(scope, task, first.label, annotators, pair, agreement))
    return sorted(found, key=lambda row: (row.task_id, row.label, row.corrections))


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    """Two empty masks agree; masks of another size do not."""
    if first.shape != second.shape:
        return 0.0
    union = int((first | second).sum())
    return 1.0 if not union else int((first & second).sum()) / union
