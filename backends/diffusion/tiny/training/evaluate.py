"""Stage ``evaluate``: what the exported folder can do, on concepts and drawings that training never saw.

IoU is against exact masks at 128 x 128, thresholds relative to each map's range, picked on validation concepts.
Prints a table and writes ``evaluation.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from . import presence_trial
from .bench import BINS, Bench, iou_curves
from .export import WEIGHTS
from .fits import fit_of
from .measure import (
    OTHER,
    UNSEEN,
    Score,
    Tokens,
    learn_tokens,
    nearest_words,
    paired,
    score_chosen_words,
    score_tokens,
    score_words,
    threshold,
)
from .sources import run_folder


class Table:
    """Named scores on test concepts, each at the threshold that is best on the validation concepts."""

    def __init__(self, shipped: dict[str, float]) -> None:
        self.shipped = shipped
        self.rows: dict[str, dict[str, Any]] = {}
        self.concepts: dict[str, dict[int, float]] = {}

    def add(self, name: str, validation: Score, test: Score) -> float:
        """Record and print a row; returns its IoU on other drawings."""
        at = validation.best()
        kind = "token" if "token" in name else "word"
        shipped = round(self.shipped[f"{kind}_threshold"] * BINS)
        row = {
            "threshold": threshold(at),
            "validation": validation.at(at),
            OTHER: test.at(at),
            "shipped threshold": test.at(shipped),
        }
        if UNSEEN in test.curves:
            row[UNSEEN] = test.at(at, UNSEEN)
        row["concepts"] = len(test.curves[OTHER])
        self.rows[name], self.concepts[name] = row, test.by_concept(at)
        print(
            f"{name:44s} tau {row['threshold']:.3f}  {row[OTHER]:.3f}  unseen style {row.get(UNSEEN, float('nan')):.3f}  shipped tau {row['shipped threshold']:.3f}  {row['concepts']} concepts",
            flush=True,
        )
        return float(row[OTHER])


class Evaluation:
    """The four benches of an exported folder and the recipes in its ``ovam.json``."""

    def __init__(self, weights: Path) -> None:
        calibration = json.loads((weights / "ovam.json").read_text())["calibration"]
        self.new, self.gentle = (fit_of(calibration[name]) for name in ("token_recipe", "word_recipe"))
        self.presence = {key: calibration.get(key) for key in ("word_presence", "token_presence")}
        self.known = Bench(("known_validation",), weights), Bench(("known_test",), weights)
        self.novel = Bench(("novel_validation",), weights), Bench(("novel_test",), weights)
        self.labels, self.base = self.known[0].library.labels, self.known[0].library.known
        self.words = [self.labels[c] for c in self.base]
        self.table = Table(calibration)

    def both(self, name: str, benches: tuple[Bench, Bench], score: Callable[[Bench], Score]) -> None:
        self.table.add(name, score(benches[0]), score(benches[1]))

    def known_words(self) -> dict[str, float]:
        """The right word, other names of it, a sentence around it; absent words; the own class among 20 words."""
        names = [c["names"] for c in self.known[0].library.concepts]
        self.both("known: right word", self.known, lambda b: score_words(b, lambda c: [self.labels[c]]))
        self.both("known: another name", self.known, lambda b: score_words(b, lambda c: names[c][1:5]))
        sentence = "a photograph of a {}"
        self.both(
            "known: word in a sentence", self.known, lambda b: score_words(b, lambda c: [self.labels[c]], sentence)
        )
        rng = np.random.default_rng(0)
        self.both(
            "known: absent word", self.known, lambda b: score_words(b, lambda c: rng.choice(self.words, 5).tolist())
        )
        self.both("known: gentle token, one shot", self.known, lambda b: score_tokens(b, learn_tokens(b, self.gentle)))
        return {kind: self._among_twenty(self.known[1], kind) for kind in ("T", "U")}

    def novel_concepts(self) -> dict[int, Tokens]:
        """Words and tokens of concepts that training never saw; returns the test tokens by shots."""
        near = {c: nearest_words(b, int(c), self.words) for b in self.novel for c in np.unique(b.concept)}
        self.both("novel: own word", self.novel, lambda b: score_words(b, lambda c: [self.labels[c]]))
        self.both('novel: "thing"', self.novel, lambda b: score_words(b, lambda c: ["thing"]))
        self.both(
            "novel: best of own, thing, 5 nearest words",
            self.novel,
            lambda b: score_chosen_words(b, lambda c: [self.labels[c], "thing", *near[c]]),
        )
        self.both("novel: best of 5 nearest words", self.novel, lambda b: score_chosen_words(b, lambda c: near[c]))
        self.both("novel: best of all known words", self.novel, lambda b: score_chosen_words(b, lambda c: self.words))
        learned = {}
        for shots in (1, 3, 5):
            tokens = tuple(learn_tokens(b, self.new, shots) for b in self.novel)
            learned[shots] = tokens[1]
            pairs = list(zip(self.novel, tokens, strict=True))
            self.table.add(f"novel: {shots}-shot token", *(score_tokens(b, t) for b, t in pairs))
            if shots == 1:
                self.table.add("novel: wrong token", *(score_tokens(b, t, wrong=True) for b, t in pairs))
        return learned

    def limits(self) -> dict[str, float]:
        """What a perfect foreground map and the exact map at 16 x 16 would score on novel test scenes."""
        bench = self.novel[1]
        rows = np.where(bench.kind == "T")[0]
        shares = [(bench.mask[r] & bench.cover[r]).sum() / bench.cover[r].sum() for r in rows]
        exact = iou_curves(bench.target[rows][:, None], bench.mask[rows])[:, 0]
        return {"any foreground": float(np.mean(shares)), "exact 16 x 16 map": float(exact.mean(0).max())}

    def presence_of(self, tokens: Tokens) -> dict[str, dict[str, float]]:
        """Recall and false presence on test concepts, with the weights fitted on validation concepts."""
        rng = np.random.default_rng(1)
        spoken = presence_trial.known_trials(self.known[1], rng)
        trials = presence_trial.token_trials(self.novel[1], tokens, rng)
        result = {}
        for name, (features, present) in (("word", spoken.chosen(False)), ("token", trials.chosen(True))):
            result[name] = presence_trial.judge(features, present, self.presence[f"{name}_presence"])
            print("presence of a", name, {k: round(v, 3) for k, v in result[name].items()})
        return result

    def _among_twenty(self, bench: Bench, kind: str) -> float:
        """Share of the object's pixels at which its word has the highest map of 20 words, 19 of them absent."""
        rng, found = np.random.default_rng(0), []
        for concept in np.unique(bench.concept):
            rows = bench.rows(concept, kind)
            others = [w for w in rng.choice(self.words, 30, replace=False) if w != self.labels[concept]][:19]
            maps = bench.word_maps(bench.take(rows), [self.labels[concept], *others])
            first = F.interpolate(maps, bench.mask.shape[1:], mode="bilinear", align_corners=False).argmax(1) == 0
            found += [
                float(f[torch.from_numpy(m)].float().mean()) for f, m in zip(first, bench.mask[rows], strict=True)
            ]
        return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    weights = parser.parse_args().weights
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = Evaluation(weights)
    accuracy = run.known_words()
    tokens = run.novel_concepts()
    limits = run.limits()
    concepts = run.table.concepts
    one, base = concepts["novel: 1-shot token"], "novel: best of own, thing, 5 nearest words"
    rivals = ("novel: own word", 'novel: "thing"', base, "novel: best of all known words", "novel: wrong token")
    differences = {f"1-shot - {name.removeprefix('novel: ')}": paired(one, concepts[name]) for name in rivals}
    differences |= {
        f"{k}-shot - {base[7:]}": paired(concepts[f"novel: {k}-shot token"], concepts[base]) for k in (3, 5)
    }
    differences["known: gentle token - word"] = paired(
        concepts["known: gentle token, one shot"], concepts["known: right word"]
    )
    for name, value in differences.items():
        print(
            f"{name:56s} {value['points']:+.1f} [{value['low']:.1f}, {value['high']:.1f}] better on {value['better']:.0%}"
        )
    print("own class among 20 words, pixels:", {k: round(v, 3) for k, v in accuracy.items()}, limits)
    result = {
        "table": run.table.rows,
        "differences": differences,
        "pixel accuracy among 20": accuracy,
        "limits": limits,
    }
    if run.presence["word_presence"]:
        result["presence"] = run.presence_of(tokens[1])
    (run_folder() / "evaluation.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
