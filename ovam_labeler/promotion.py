"""Which meaning of a class is used, its token or its word: judged on corrections the judged token has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

#: What a token of a *new* class is worth before any evidence: a lead in mean IoU over the class's own word (validation
#: concepts of the embedded model show .13, so this is cautious), and how many held-out corrections that counts as.  The
#: count is a judgement, not a measurement: a few noisy folds alone sent good tokens back to their words.
PRIOR_LEAD = 0.10
PRIOR_COUNT = 6


@dataclass(frozen=True, slots=True)
class Evidence:
    """IoU (0..1) on held-out corrections, fold by fold: the token learned from the others, and the class's word."""

    token: tuple[float, ...]
    word: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Attributes:
    use_token: whether predictions use the token (alias ``active``) or the word.
    state: of the new version: ``unproven``, ``proven`` or ``rejected``.
    reason: one sentence.
    """

    use_token: bool
    state: str
    reason: str


def judge(evidence: Evidence | None, *, known: bool) -> Verdict:
    """Decide by leave-one-out evidence; with a single correction there is none, and the human's word stands.

    A new class's word is a guess of the text encoder, so the token is given the lead that such tokens have
    (:data:`PRIOR_LEAD`) until the evidence outweighs it; a known word's token has to lead by itself.

    Args:
        known: the base model was trained with the class's word.
    """
    if evidence is None or not evidence.token:
        return Verdict(
            True,
            "unproven",
            "It is used, unproven: a second correction of this class is needed to judge it against its word.",
        )
    token, word, count = fmean(evidence.token), fmean(evidence.word), len(evidence.token)
    figures = f"IoU {token:.2f} against {word:.2f} of the word on {_corrections(count)} held out in turn"
    if token > word:
        return Verdict(True, "proven", f"It is used: {figures}.")
    if not known and count * (token - word) + PRIOR_COUNT * PRIOR_LEAD >= 0:
        return Verdict(
            True,
            "unproven",
            f"It is used, unproven: {figures}, too little against a new class's token to go back to its word.",
        )
    return Verdict(False, "rejected", f"It is not used, the word does better: {figures}.")


def _corrections(count: int) -> str:
    return "1 correction" if count == 1 else f"{count} corrections"
