"""Which corrections of a class contradict the others: pure rules over figures that :mod:`ovam_labeler.agreement` takes.

What the constants were chosen by is in docs/registry.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

#: One margin kept is worth so much likeness, and from so much doubt on a correction is set aside.  Chosen together on sets of three
#: and four corrections of validation concepts: ``python -m ovam_labeler.evaluation.shots``.
KEPT_WORTH = 0.25
CONTRADICTION = 0.13


@dataclass(frozen=True, slots=True)
class Agreement:
    """How n corrections agree.  On picture i token j was asked for, learned from correction j alone.

    Attributes:
        kept: (n, n), how much of the margin it has on its own picture token j keeps on picture i.  1: the mask of i stands out as
            its own does.  0: no more than the rest of the picture.  -1: the rest stands out instead.
        alike: (n, n) in -1..1, how alike what was marked in pictures i and j looks to the model.
        elsewhere: (n, n, n) in -1..1, how alike what token j finds in picture i *outside* the mask looks to what was marked in picture k.
    """

    kept: np.ndarray
    alike: np.ndarray
    elsewhere: np.ndarray

    def __len__(self) -> int:
        return len(self.kept)

    def of(self, chosen: Sequence[int]) -> Agreement:
        """Of some of the corrections, in this order."""
        two = np.ix_(chosen, chosen)
        return Agreement(self.kept[two], self.alike[two], self.elsewhere[np.ix_(chosen, chosen, chosen)])


def contradicting(agreement: Agreement) -> list[int]:
    """Which of n corrections contradict the others, the worst first: indices; none where there are fewer than three.

    One after the other is set aside while its :func:`doubt` is at least :data:`CONTRADICTION` and the rest are still the majority.
    """
    rest, aside = list(range(len(agreement))), []
    while len(rest) >= 3 and 2 * (len(rest) - 1) > len(agreement):
        doubts = {i: doubt(agreement, i, [j for j in rest if j != i]) for i in rest}
        worst = max(rest, key=lambda i: doubts[i])
        if doubts[worst] < CONTRADICTION:
            break
        rest.remove(worst)
        aside.append(worst)
    return aside


def doubt(agreement: Agreement, one: int, others: Sequence[int]) -> float:
    """How much others speak against one correction.

    By how much what their tokens find elsewhere in its picture looks more like what they marked than what it marked does, less
    :data:`KEPT_WORTH` of the margin that their tokens keep on its mask.  A mask that looks unlike theirs is not doubted for that
    alone: of an unlike design, nothing else in the picture looks like theirs either.
    """
    elsewhere = fmean(agreement.elsewhere[one, j, k] for j in others for k in others)
    alike, kept = (fmean(table[one, j] for j in others) for table in (agreement.alike, agreement.kept))
    return float(elsewhere - alike - KEPT_WORTH * kept)
