"""What a version's stored figures say, for people: is it better than the word, and on what evidence.

Figures come from a database that other programs may have written to, so whatever is not a finite number is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True, slots=True)
class Proof:
    """A version's IoU (0..1) beside its baselines.

    Attributes:
        token, word: mean over corrections held back from learning, fold by fold; None without evidence.
        count: corrections held back.
        fit, fit_word: on the very corrections it was learned from; no proof of anything but that learning worked.
    """

    token: float | None
    word: float | None
    count: int
    fit: float | None
    fit_word: float | None

    @property
    def lead(self) -> float | None:
        """Over the word, as the two are shown (two decimals); None without evidence."""
        return None if self.token is None or self.word is None else round(self.token, 2) - round(self.word, 2)


def proof_of(metrics: Mapping[str, Any]) -> Proof:
    """Read from a version's ``metrics``."""
    held_out = metrics.get("held_out")
    held_out = held_out if isinstance(held_out, Mapping) else {}
    token, word = (numbers(held_out.get(key)) for key in ("token", "word"))
    return Proof(
        token=fmean(token) if token else None,
        word=fmean(word) if word else None,
        count=len(token),
        fit=number(metrics.get("train_iou")),
        fit_word=number(metrics.get("word_iou")),
    )


def number(value: object) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def numbers(values: object) -> list[float]:
    """The finite numbers of a list, in order."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    return [found for value in values if (found := number(value)) is not None]


def text(value: object, most: int = 400) -> str:
    """Text of at most ``most`` characters, else nothing."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= most else value[: most - 1] + "…"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the evidence: what was looked at, what came of it, and what to keep in mind."""

    what: str
    figures: str
    note: str = ""


def evidence_of(metrics: Mapping[str, Any]) -> list[Line]:
    """What the promotion gate looked at when the version was made, from its ``metrics["evidence"]``; fold by fold."""
    found = _mapping(metrics.get("evidence"))
    lines = []
    held = _mapping(found.get("held_back")) or _mapping(metrics.get("held_out"))
    token, word = numbers(held.get("token")), numbers(held.get("word"))
    if token:
        figures = f"token {_list(token)}; word {_list(word)}"
        lines.append(Line("Corrections held back in turn", figures, "IoU, each with the token learned from the others"))
    newest = _mapping(found.get("newest"))
    with_it, without = numbers(newest.get("with")), numbers(newest.get("without"))
    if with_it and without:
        figures = f"with it {_list(with_it)}; without {_list(without)}"
        lines.append(Line("What the newest correction does to the older ones", figures, "IoU on the older corrections"))
    negatives = _mapping(found.get("negatives"))
    count = number(negatives.get("count"))
    if count:
        seen, by_word = number(negatives.get("token")) or 0, number(negatives.get("word")) or 0
        figures = f"seen by the token in {seen:.0f}, by the word in {by_word:.0f} of {count:.0f}"
        lines.append(Line("Pictures known to be without the class", figures))
    accepted = _mapping(found.get("accepted"))
    offered = number(accepted.get("offered"))
    if offered:
        figures = f"{number(accepted.get('untouched')) or 0:.0f} of {offered:.0f}"
        note = f"biased {text(accepted.get('bias'))}" if text(accepted.get("bias")) else ""
        lines.append(Line("Proposals of the token before, submitted untouched", figures, note))
    if found.get("contradicts") is True:
        lines.append(Line("The newest correction", "contradicts the others"))
    if aside := numbers(found.get("set_aside")):
        figures = ", ".join(f"{n:.0f}" for n in aside)
        lines.append(
            Line("Corrections set aside", figures, "they contradict the others; nothing was learned from them")
        )
    return lines


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(values: Sequence[float], most: int = 8) -> str:
    shown = ", ".join(f"{v:.2f}" for v in values[:most])
    return f"{shown}, …" if len(values) > most else shown or "–"
