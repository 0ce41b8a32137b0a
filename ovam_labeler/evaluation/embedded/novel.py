"""Concepts that no training caption named: their words, tokens of one, three and five shots, presence of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.contract import ClassQuery
from ovam_labeler.evaluation.embedded.bench import Bench, Tally, relative_curve
from ovam_labeler.evaluation.embedded.drawings import Picture
from ovam_labeler.evaluation.presence import OFFERED

SHOTS = (1, 3, 5)
#: One-shot tokens of a concept, each from another annotated picture.
ONE_SHOT = 3
NEAREST = 5


class Nearest:
    """Trained labels nearest in meaning to a word (cosine of noun embeddings, less their mean)."""

    def __init__(self, bench: Bench, trained: Sequence[str]) -> None:
        self.attributor, self.trained = bench.attributor, list(trained)
        table = np.stack([self.attributor.noun(word) for word in self.trained])
        self.mean = table.mean(0)
        self.unit = (table - self.mean) / np.linalg.norm(table - self.mean, axis=1, keepdims=True)

    def __call__(self, name: str, count: int = NEAREST) -> list[str]:
        noun = self.attributor.noun(name) - self.mean
        return [self.trained[i] for i in np.argsort(-(self.unit @ noun), kind="stable")[:count]]


def measure_novel(bench: Bench, pictures: Sequence[Picture], trained: Sequence[str], seed: int = 0) -> Tally:
    """Rows of novel concepts; a token is judged on drawings of families that it was not learned on."""
    tally, rng, nearest = Tally(), np.random.default_rng(seed), Nearest(bench, trained)
    attributor, calibration = bench.attributor, bench.attributor.calibration
    names = sorted({p.concept.name for p in pictures})
    annotated = {n: [p for p in pictures if p.concept.name == n and p.kind == "annotated"] for n in names}
    first: dict[str, ClassQuery] = {}
    for name in names:
        tests = [p for p in pictures if p.concept.name == name and p.kind != "annotated"]
        words = [attributor.words(w) for w in (name, "thing", *nearest(name))]
        sets = [(1, annotated[name][i : i + 1]) for i in range(ONE_SHOT)]
        sets += [(shots, annotated[name][:shots]) for shots in SHOTS[1:]]
        tokens = [(shots, shown, bench.learn(shown, calibration.token_recipe)) for shots, shown in sets]
        first[name] = tokens[0][2]
        best = {p.name: _best(bench, p, words) for p in annotated[name][:ONE_SHOT]}
        for picture in tests:
            maps = bench.maps(picture, [*words, *(query for _, _, query in tokens)])
            curves = [relative_curve(picture, heat) for heat in maps]
            tally.curve("own word", picture, curves[0])
            tally.curve("thing", picture, curves[1])
            for k, (shots, shown, _) in enumerate(tokens):
                if picture.kind == "seen" and picture.family in {p.family for p in shown}:
                    continue
                tally.curve(f"{shots}-shot token", picture, curves[len(words) + k])
                if shots == 1:
                    tally.curve("best word", picture, curves[best[shown[0].name]])
                    heat = maps[len(words) + k]
                    tally.value(
                        "1-shot token, refined", picture, bench.refined(picture, heat, calibration.token_threshold)
                    )
        bench.forget()
    _presence(bench, pictures, annotated, first, trained, tally, rng)
    return tally


def _best(bench: Bench, picture: Picture, words: Sequence[ClassQuery]) -> int:
    """The word that fits an annotated picture best, at its best threshold."""
    return int(np.argmax([relative_curve(picture, heat).max() for heat in bench.maps(picture, words)]))


def _presence(
    bench: Bench,
    pictures: Sequence[Picture],
    annotated: dict[str, list[Picture]],
    first: dict[str, ClassQuery],
    trained: Sequence[str],
    tally: Tally,
    rng: np.random.Generator,
) -> None:
    """Ten labels a picture: one-shot tokens and known words, as a project has them; the tokens are judged."""
    names = list(first)
    for picture in pictures:
        learned_on = annotated[picture.concept.name][0].family
        if picture.kind == "annotated" or (picture.kind == "seen" and picture.family == learned_on):
            continue
        there = [n for n in names if n in picture.masks]
        absent = [n for n in names if n not in picture.masks]
        tokens = [*there, *(absent[i] for i in rng.choice(len(absent), min(len(absent), OFFERED // 2), replace=False))]
        others = [w for w in trained if w not in picture.masks]
        words = [others[i] for i in rng.choice(len(others), OFFERED - len(tokens), replace=False)]
        queries = [*(first[n] for n in tokens), *(bench.attributor.words(w) for w in words)]
        for name, features in zip(tokens, bench.features(picture, queries), strict=False):
            tally.judged("token", picture, (features, name in picture.masks))
        bench.forget()
