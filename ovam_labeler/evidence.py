"""Takes the figures the promotion gate decides by: held-back corrections, negatives, proposals submitted untouched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.contract import TokenFit
from ovam_labeler.contradiction import contradicting
from ovam_labeler.learning_examples import Lesson
from ovam_labeler.promotion import Evidence
from ovam_labeler.trials import Trials
from token_store.contract import TokenStore
from token_store.entities import Scope, TokenVersion

#: Most folds of the leave-one-out figures, the newest corrections held out.
MAX_FOLDS = 4


@dataclass(frozen=True, slots=True)
class Findings:
    """What learning found.

    Attributes:
        fit: the token to be stored: learned from the corrections that agree, and from the newest even where it does not.
        learned_from: those lessons.
        evidence: figures for the gate.
        agreement: what :meth:`Trials.agreement` says tokens keep of their margins, by correction id; empty under three positive corrections.
    """

    fit: TokenFit
    learned_from: tuple[Lesson, ...]
    evidence: Evidence
    agreement: dict[str, dict[str, float]]


def expected_fits(positives: int, negatives: int) -> int:
    """About how many fits :func:`investigate` makes, for a progress bar."""
    folds = min(positives, MAX_FOLDS) if positives > 1 else 0
    singles = positives if positives > 2 else 0
    return 1 + folds + singles + (folds if positives > 2 else 0) + (1 if negatives else 0)


def investigate(trials: Trials, lessons: Sequence[Lesson], newest: int | None) -> Findings:
    """Fit the class and take the evidence.

    Args:
        lessons: at least one positive; positives before negatives, newest first.
        newest: id of the correction that is new; None where the class is judged again without one.
    """
    positives = [lesson for lesson in lessons if lesson.positive]
    table: dict[str, dict[str, float]] = {}
    aside: list[Lesson] = []
    if len(positives) > 2:
        agreement = trials.agreement(positives)
        ids = [str(lesson.correction_id) for lesson in positives]
        table = {
            ids[i]: {ids[j]: float(agreement.kept[i, j]) for j in range(len(ids)) if j != i} for i in range(len(ids))
        }
        oldest_first = range(len(positives))[::-1]
        aside = [positives[oldest_first[k]] for k in contradicting(agreement.of(oldest_first))]
    set_aside = {lesson.correction_id for lesson in aside}
    contradicts = newest in set_aside
    kept = [lesson for lesson in lessons if lesson.correction_id not in set_aside]
    learned_from = [lesson for lesson in lessons if lesson.correction_id not in set_aside - {newest}]
    fit = trials.fit(learned_from, "Learning")
    folds = [lesson for lesson in kept if lesson.positive][:MAX_FOLDS]
    folds = folds if len(folds) > 1 else []
    with_newest, without = _with_and_without(trials, learned_from, folds, newest)
    negatives = [lesson for lesson in kept if not lesson.positive]
    blind = trials.fit([lesson for lesson in kept if lesson.positive]).embedding if negatives else None
    return Findings(
        fit,
        tuple(learned_from),
        Evidence(
            token=tuple(trials.held_back(lesson, kept) for lesson in folds),
            word=tuple(trials.word_iou(lesson) for lesson in folds),
            with_newest=with_newest,
            without=without,
            negatives=len(negatives),
            token_alarms=sum(trials.says_present(lesson, blind) for lesson in negatives),
            word_alarms=sum(trials.says_present(lesson, None) for lesson in negatives),
            contradicts=contradicts,
            set_aside=tuple(sorted(set_aside)),
        ),
        table,
    )


def _with_and_without(
    trials: Trials, lessons: Sequence[Lesson], folds: Sequence[Lesson], newest: int | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """IoU on the older corrections, held out, of the token learned with and without the newest one."""
    older = [lesson for lesson in folds if lesson.correction_id != newest]
    if len(older) < 2 or not any(lesson.correction_id == newest and lesson.positive for lesson in lessons):
        return (), ()
    before = [lesson for lesson in lessons if lesson.correction_id != newest]
    pairs = [(trials.held_back(lesson, lessons), trials.held_back(lesson, before)) for lesson in older]
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def acceptance(store: TokenStore, scope: Scope, label: str, current: TokenVersion | None) -> tuple[int, int]:
    """(submitted untouched, submitted at all) among the current token's proposals of the class."""
    if current is None:
        return 0, 0
    made = [o for o in store.list_outcomes(scope, label) if o.token_version == current.number]
    return sum(outcome.kept for outcome in made), len(made)
