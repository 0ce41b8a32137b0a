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
        parent: of the version before, on the same corrections; None where it was not measured.
        count: corrections held back.
        fit, fit_word: on the very corrections it was learned from; no proof of anything but that learning worked.
    """

    token: float | None
    word: float | None
    parent: float | None
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
    token, word, parent = (numbers(held_out.get(key)) for key in ("token", "word", "parent"))
    return Proof(
        token=fmean(token) if token else None,
        word=fmean(word) if word else None,
        parent=fmean(parent) if parent else None,
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
