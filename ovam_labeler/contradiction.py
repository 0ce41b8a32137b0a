"""Which corrections of a class contradict the others: pure rules over figures that :mod:`ovam_labeler.agreement` takes.

What the constants were chosen by is in docs/registry.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

#: One margin kept is worth so much likeness, and from so much doubt on a correction is set aside.  Chosen together on sets of three
#: and four corrections of validation concepts: ``python -m ovam_labeler.evaluation.shots``.
KEPT_WORTH = 0.25
CONTRADICTION = 0.13

#: From so much doubt on a correction is set aside where the burden of proof is on it: what the others mean is found elsewhere in its
#: picture at least as well as in its mask.
ON_TRIAL = 0.0

#: So many earlier corrections are a case that a new one has to fit.
_ESTABLISHED = 3


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
    """Which of n corrections, the oldest first, contradict the others: indices, the worst first; none where there are fewer than three.

    They are judged as they came.  Each time, one after the other is set aside while its :func:`doubt` is at least
    :data:`CONTRADICTION` and the rest are still the majority.  :data:`ON_TRIAL` is enough against a correction

    - that is new where at least three came before it: without it the class is as good as it was;
    - that is the first, once there are two others: no other was there to judge it;
    - that was set aside before: it is taken in again where the others come to speak for it, not where they say less against it.
    """
    aside: list[int] = []
    for count in range(3, len(agreement) + 1):
        newcomer = count - 1 if count > _ESTABLISHED else 0
        aside = _set_aside(agreement.of(range(count)), {newcomer, *aside})
    return aside


def _set_aside(agreement: Agreement, on_trial: Collection[int]) -> list[int]:
    rest, aside = list(range(len(agreement))), []
    while len(rest) >= 3 and 2 * (len(rest) - 1) > len(agreement):
        excess = {
            i: doubt(agreement, i, [j for j in rest if j != i]) - (ON_TRIAL if i in on_trial else CONTRADICTION)
            for i in rest
        }
        worst = max(rest, key=lambda i: excess[i])
        if excess[worst] < 0:
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
    elsewhere = agreement.elsewhere[one][np.ix_(others, others)].mean()
    return float(elsewhere - agreement.alike[one, others].mean() - KEPT_WORTH * agreement.kept[one, others].mean())
