"""Pools reports over seeds and holds them against the bars: ``python -m ovam_labeler.evaluation.pooled r0 r1 ...``.

Each argument is a report folder or a JSON file.  Exits 0 when every bar is met, 1 when one is not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovam_labeler.evaluation.metrics import paired_bootstrap


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure, what it has to reach, and whether it does.  ``value`` is in the unit that ``text`` names."""

    text: str
    value: float
    bound: str
    met: bool


def pool(reports: Sequence[dict[str, Any]]) -> list[Bar]:
    """The bars over all concepts of all reports (a concept picked by two seeds counts twice, on other scenes).

    Raises:
        ValueError: no concept without a word, or none with one.
    """
    rows = [row for report in reports for row in report["concepts"]]
    novel, known = [r for r in rows if not r["has_word"]], [r for r in rows if r["has_word"]]
    if not novel or not known:
        raise ValueError("the reports hold no concepts of one of the groups: with and without a word are needed.")
    one, three, wrong = (
        _points(novel, a, b) for a, b in (("after", "before"), ("after3", "before"), ("after", "wrong_token"))
    )
    low, high = paired_bootstrap(one.tolist())
    kept = _points(known, "after", "before").mean()
    bars = [
        Bar("without a word, after - before, points", one.mean(), ">= 5", bool(one.mean() >= 5)),
        Bar(f"  its paired 95 % interval [{low:.1f}, {high:.1f}], lower end", low, "> 0", low > 0),
        Bar("without a word, after - wrong token, points", wrong.mean(), ">= 15", bool(wrong.mean() >= 15)),
        Bar("without a word, after3 - before, points", three.mean(), ">= 10", bool(three.mean() >= 10)),
        Bar("with a word, after - before, points", kept, ">= -1", bool(kept >= -1)),
    ]
    for text, key, bound in (
        ("known words paint of the absent labels at recall .8", "known_words", 0.25),
        ("learned tokens paint of the absent labels at recall .8", "learned_tokens", 0.5),
    ):
        painted = [r["absent"]["painted_at_recall_0.8"][key]["painted"] for r in reports]
        value = float(np.mean([p for p in painted if p is not None])) if any(p is not None for p in painted) else 1.0
        bars.append(Bar(text, value, f"<= {bound}", value <= bound))
    return bars


def levels(reports: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean IoU in points of each figure, for concepts without and with a word."""
    rows = [row for report in reports for row in report["concepts"]]
    figures = ("before", "own_word", "after", "token", "after3", "wrong_token", "foreground")
    return {
        name: {
            f: float(np.mean([100 * r[f] for r in rows if r["has_word"] == has_word and r[f] is not None] or [np.nan]))
            for f in figures
        }
        for name, has_word in (("without a word", False), ("with a word", True))
    }


def read_report(path: Path) -> dict[str, Any]:
    """A report from its folder or its file."""
    found: dict[str, Any] = json.loads((path / "report.json" if path.is_dir() else path).read_text(encoding="utf-8"))
    return found


def _points(rows: Sequence[dict[str, Any]], figure: str, less: str) -> np.ndarray:
    return np.array([100 * (r[figure] - r[less]) for r in rows if None not in (r[figure], r[less])])


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print("usage: python -m ovam_labeler.evaluation.pooled REPORT [REPORT ...]", file=sys.stderr)
        return 2
    reports = [read_report(Path(a)) for a in arguments]
    print(f"{len(reports)} reports, seeds {', '.join(str(r['seed']) for r in reports)}")
    for name, values in levels(reports).items():
        print(f"{name:16s} " + "  ".join(f"{f} {v:.1f}" for f, v in values.items()))
    bars = pool(reports)
    for bar in bars:
        print(f"{'ok  ' if bar.met else 'MISS'} {bar.text:58s} {bar.value:8.2f}   {bar.bound}")
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
