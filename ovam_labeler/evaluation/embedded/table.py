"""The figures beside their bars. Thresholds come from validation concepts, per kind of map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backends.attention.presence import presence_probability
from ovam_labeler.evaluation.embedded.bench import Tally
from ovam_labeler.evaluation.metrics import BINS, auc, painted_at_recall, paired_bootstrap

KINDS = ("seen", "unseen")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: its values by kind of picture, and the bar of each (None: no bar). ``most``: the bar is an upper one."""

    text: str
    values: Mapping[str, float | None]
    bars: Mapping[str, float]
    most: bool = False
    digits: int = 3
    note: str = ""

    def met(self, kind: str) -> bool | None:
        value, bar = self.values.get(kind), self.bars.get(kind)
        if value is None or bar is None:
            return None
        return value <= bar if self.most else value >= bar

    def __str__(self) -> str:
        cells = []
        for kind in KINDS:
            value, bar, met = self.values.get(kind), self.bars.get(kind), self.met(kind)
            shown = "-" if value is None else f"{value:.{self.digits}f}"
            sign = (
                ""
                if bar is None
                else f"{'<=' if self.most else '>='} {bar:g} {'ok' if met else 'MISS' if met is False else ''}"
            )
            cells.append(f"{shown:>7s} {sign:14s}")
        return f"{self.text:52s} {' '.join(cells)} {self.note}".rstrip()


class Figures:
    """Lines from the tallies of known and novel concepts on validation and test."""

    def __init__(
        self, known: Mapping[str, Tally], novel: Mapping[str, Tally], weights: Mapping[str, Mapping[str, float]]
    ):
        self.known, self.novel, self.weights = known, novel, weights

    def iou(
        self, group: Mapping[str, Tally], row: str, picked_on: str | None = None
    ) -> tuple[dict[str, float | None], int]:
        """Mean IoU by kind at the threshold that is best for ``picked_on`` (default: the row) on validation."""
        at = int(group["val"].mean_curve(picked_on or row, "seen").argmax())
        test = group["test"].curves.get(row, {})
        return {k: float(group["test"].mean_curve(row, k)[at]) if k in test else None for k in KINDS}, at

    def lines(self) -> list[Line]:
        return [*self.of_words(), *self.of_tokens(), *self.of_presence()]

    def of_words(self) -> list[Line]:
        word, at = self.iou(self.known, "word")
        tau = f"threshold {at / BINS:.3f}"
        both, _ = self.iou(self.known, "word that has an unseen synonym", "word")
        synonym, _ = self.iou(self.known, "unseen synonym", "word")
        sentence, _ = self.iou(self.known, "sentence", "word")
        absent, cut = self.iou(self.known, "absent word, absolute", "word, absolute")
        absolute, _ = self.iou(self.known, "word, absolute")
        gentle, _ = self.iou(self.known, "gentle token")
        readout = max(
            ("among 20, maps", "among 20, logits"), key=lambda row: self.mean(self.known["val"], row, "seen") or 0.0
        )
        return [
            Line("known words: mean IoU", word, {"seen": 0.70, "unseen": 0.60}, note=tau),
            Line("  with the product's threshold and refiner", self.means(self.known["test"], "word, refined"), {}),
            Line("  at an absolute threshold", absolute, {}, note=f"threshold {cut / BINS:.3f}"),
            Line("known words: an absent word there", absent, {"seen": 0.03, "unseen": 0.05}, most=True),
            Line(
                "own class among 20 words, pixel accuracy",
                self.means(self.known["test"], readout),
                {"seen": 0.85, "unseen": 0.70},
                note=f"by {readout.split()[-1]}, chosen on validation",
            ),
            Line("sentence prompt - word, points", _points(sentence, word), {"seen": -3.0}, digits=1),
            Line(
                "unseen synonym - word, points", _points(synonym, both), {"seen": -10.0}, digits=1, note="same concepts"
            ),
            Line("known word, one gentle shot - word, points", _points(gentle, word), {"seen": 0.0}, digits=1),
        ]

    def of_tokens(self) -> list[Line]:
        lines = []
        for shots, seen, unseen in ((1, 0.58, 0.50), (3, 0.65, None), (5, 0.68, None)):
            values, at = self.iou(self.novel, f"{shots}-shot token")
            bars = {"seen": seen} | ({"unseen": unseen} if unseen else {})
            lines.append(
                Line(f"no word: {shots} shot{'s' * (shots > 1)}", values, bars, note=f"threshold {at / BINS:.3f}")
            )
        one = self.means(self.novel["test"], "1-shot token, refined")
        lines.insert(1, Line("  with the product's threshold and refiner", one, {}))
        for row in ("best word", "own word", "thing"):
            lines.append(Line(f"no word: {row}", self.iou(self.novel, row)[0], {}))
        gains, notes = {}, []
        for kind in KINDS:
            gain = self._gain("1-shot token", "best word", kind)
            if gain is not None:
                low, high = paired_bootstrap(gain)
                gains[kind] = float(np.mean(gain))
                notes.append(f"{kind} [{low:.1f}, {high:.1f}]")
        bars = {"seen": 15.0, "unseen": 10.0}
        lines.append(
            Line("no word: one shot - best word, paired, points", gains, bars, digits=1, note=", ".join(notes))
        )
        return lines

    def of_presence(self) -> list[Line]:
        lines = []
        for row, group, bar in (("word", self.known, 0.95), ("token", self.novel, 0.85)):
            values: dict[str, float | None] = {}
            painted: dict[str, float | None] = {}
            for kind, rows in group["test"].presence.get(row, {}).items():
                p = [(presence_probability(f, self.weights[row]), there) for f, there in rows]
                present, absent = [v for v, t in p if t], [v for v, t in p if not t]
                values[kind], painted[kind] = auc(present, absent), painted_at_recall(present, absent)
            name = "known word" if row == "word" else "one-shot token"
            lines.append(Line(f"presence AUC: {name}, ten labels asked for", values, {"seen": bar}))
            lines.append(Line("  absent labels painted at recall .8", painted, {}))
        return lines

    def _gain(self, row: str, other: str, kind: str) -> list[float] | None:
        if kind not in self.novel["test"].curves.get(row, {}):
            return None
        a = self.novel["test"].by_concept(row, kind, self.iou(self.novel, row)[1])
        b = self.novel["test"].by_concept(other, kind, self.iou(self.novel, other)[1])
        return [100 * (a[c] - b[c]) for c in sorted(set(a) & set(b))]

    def mean(self, tally: Tally, row: str, kind: str) -> float | None:
        found = tally.values.get(row, {}).get(kind)
        return None if not found else float(np.mean([np.mean(v) for v in found.values()]))

    def means(self, tally: Tally, row: str) -> dict[str, float | None]:
        return {kind: self.mean(tally, row, kind) for kind in KINDS}


def _points(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> dict[str, float | None]:
    return {k: None if (x := a.get(k)) is None or (y := b.get(k)) is None else 100 * (x - y) for k in KINDS}
