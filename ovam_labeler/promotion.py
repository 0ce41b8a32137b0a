"""The promotion gate: which meaning of a class is used, its new token, the current one, or its word.

Pure rules over figures; :mod:`ovam_labeler.evidence` takes the figures, all on corrections that the judged token has not seen.
What the constants were chosen by is in docs/registry.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from token_store.registry_contract import ACTIVE, CANDIDATE

#: What a token of a *new* class is worth before any evidence: its lead in mean IoU over the class's own word (validation concepts of
#: the embedded model: .20 on corrections held out, seeds 1 to 3; .28 by ``python -m ovam_labeler.evaluation.shots --seed 0``), and how
#: many held-out corrections that counts as: so many that no set of two or three right ones (seeds 1 and 3) goes back to its word.
PRIOR_LEAD = 0.20
PRIOR_COUNT = 4

#: The newest correction may cost held-back IoU on the older ones by this much: another design of the class does so too.
MARGIN = 0.05

#: Proposals that annotators submitted untouched speak for the token that made them, but are easier accepted than mended, so
#: they take back at most the margin; so many of them take back half of it.
ACCEPTED_HALF = 4

#: Why a correction is not learned from, where the others contradict it (:mod:`ovam_labeler.contradiction`).
CONTRADICTS = "It contradicts the other corrections, something else in its picture is more like what they marked"

Use = Literal["new", "current", "word"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Figures, all held back; IoU is 0..1.

    Attributes:
        token, word: fold by fold, the token learned from the other corrections, and the class's word.
        with_newest, without: on the older corrections, the token learned with and without the newest one.
        negatives, token_alarms, word_alarms: pictures known to be without the class, and in how many of them the token
            learned without them, and the word, would be judged present.
        accepted, offered: proposals by the current token that were submitted untouched, and all that were submitted.
            Biased towards the current token: a proposal is easier accepted than corrected, and shapes what is drawn.
        contradicts: whether the newest correction contradicts the others.
        set_aside: corrections that contradict the others, by id; nothing was learned from them.
    """

    token: tuple[float, ...] = ()
    word: tuple[float, ...] = ()
    with_newest: tuple[float, ...] = ()
    without: tuple[float, ...] = ()
    negatives: int = 0
    token_alarms: int = 0
    word_alarms: int = 0
    accepted: int = 0
    offered: int = 0
    contradicts: bool = False
    set_aside: tuple[int, ...] = ()

    def figures(self) -> dict[str, Any]:
        """For the version's metrics; JSON-serialisable."""
        return {
            "held_back": {"token": list(self.token), "word": list(self.word)},
            "newest": {"with": list(self.with_newest), "without": list(self.without)},
            "negatives": {"count": self.negatives, "token": self.token_alarms, "word": self.word_alarms},
            "accepted": {
                "untouched": self.accepted,
                "offered": self.offered,
                "bias": "towards the current token: a proposal is easier accepted than corrected",
            },
            "contradicts": self.contradicts,
            "set_aside": list(self.set_aside),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Attributes:
    use: what predictions should use.
    state: of the new version: ``unproven``, ``proven`` or ``rejected``.
    reason: one sentence.
    """

    use: Use
    state: str
    reason: str


def judge(evidence: Evidence, *, known: bool, has_current: bool) -> Verdict:
    """Decide; a class's first token has no evidence against it, and the human's word stands.

    A new class's word is a guess of the text encoder, so the token is given the lead that such tokens have
    (:data:`PRIOR_LEAD`) until the evidence outweighs it; a known word's token has to lead by itself.

    Args:
        known: the base model was trained with the class's word.
        has_current: a token is active now.
    """
    if evidence.contradicts:
        return Verdict(_else(has_current), "rejected", _sentence(CONTRADICTS, evidence))
    if evidence.without and has_current:
        lead = fmean(evidence.with_newest) - fmean(evidence.without)
        needed = -MARGIN * ACCEPTED_HALF / (ACCEPTED_HALF + evidence.accepted)
        if lead < needed:
            return Verdict("current", "rejected", _sentence("The current token does better", evidence))
    if not evidence.token:
        return Verdict(
            "new",
            "unproven",
            "It is used, unproven: a second correction of this class is needed to judge it against its word.",
        )
    token = [*evidence.token, *_quiet(evidence.negatives, evidence.token_alarms)]
    word = [*evidence.word, *_quiet(evidence.negatives, evidence.word_alarms)]
    count = len(token)
    figures = f"IoU {fmean(evidence.token):.2f} against {fmean(evidence.word):.2f} of the word on {_corrections(len(evidence.token))} held out in turn"
    if evidence.negatives:
        figures += f", seen in {evidence.token_alarms} against {evidence.word_alarms} of {evidence.negatives} pictures without it"
    if fmean(token) > fmean(word):
        return Verdict("new", "proven", f"It is used: {figures}.")
    if not known and count * (fmean(token) - fmean(word)) + PRIOR_COUNT * PRIOR_LEAD >= 0:
        return Verdict(
            "new",
            "unproven",
            f"It is used, unproven: {figures}, too little against a new class's token to go back to its word.",
        )
    return Verdict("word", "rejected", f"It is not used, the word does better: {figures}.")


def _quiet(negatives: int, alarms: int) -> list[float]:
    """A picture without the class, as an IoU of nothing with nothing: 1 where nothing is seen, else 0."""
    return [0.0] * alarms + [1.0] * (negatives - alarms)


def _else(has_current: bool) -> Use:
    return "current" if has_current else "word"


def _sentence(why: str, evidence: Evidence) -> str:
    if not evidence.without:
        return f"It is not used. {why}."
    figures = f"IoU {fmean(evidence.with_newest):.2f} with the newest against {fmean(evidence.without):.2f} without it"
    return f"It is not used. {why}: {figures}, on {_corrections(len(evidence.without))} held out in turn."


def _corrections(count: int) -> str:
    return "1 correction" if count == 1 else f"{count} corrections"


@dataclass(frozen=True, slots=True)
class Moves:
    """What a verdict does to the store, by the project's policy."""

    state: str
    reason: str
    aliases: tuple[str, ...] = ()
    drop_aliases: tuple[str, ...] = ()


def by_policy(verdict: Verdict, policy: str) -> Moves:
    """``auto`` uses every new version, ``gate`` the verdict's, ``manual`` waits for a human, who sees the verdict."""
    if policy == "auto":
        state = "unproven" if verdict.state == "rejected" else verdict.state
        reason = (
            verdict.reason if verdict.use == "new" else f"It is used, as the policy is auto. The gate: {verdict.reason}"
        )
        return Moves(state, reason, (ACTIVE,))
    if policy == "manual":
        reason = f"It waits to be promoted, as the policy is manual. The gate: {verdict.reason}"
        return Moves(verdict.state, reason, (CANDIDATE,) if verdict.use == "new" else ())
    if verdict.use == "word":
        return Moves(verdict.state, verdict.reason, drop_aliases=(ACTIVE,))
    return Moves(verdict.state, verdict.reason, (ACTIVE,) if verdict.use == "new" else ())
