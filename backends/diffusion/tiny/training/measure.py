"""Scores over concepts: words and learned tokens on the test scenes, with thresholds picked elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .bench import BINS, Bench, iou_curves
from .fits import Fit, learn

OTHER, UNSEEN = "other drawing", "unseen style"


@dataclass
class Score:
    """Mean IoU curves (BINS thresholds) by split and concept: ``curves[split][concept]``."""

    curves: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    def add(self, split: str, concept: int, curve: np.ndarray) -> None:
        self.curves.setdefault(split, {})[concept] = curve

    def mean(self, split: str = OTHER) -> np.ndarray:
        return np.mean(list(self.curves[split].values()), 0)

    def best(self, split: str = OTHER) -> int:
        """Threshold bin of the highest mean IoU."""
        return int(self.mean(split).argmax())

    def at(self, bin_: int, split: str = OTHER) -> float:
        return float(self.mean(split)[bin_])

    def by_concept(self, bin_: int, split: str = OTHER) -> dict[int, float]:
        return {c: float(v[bin_]) for c, v in self.curves[split].items()}


def score_words(bench: Bench, name_of: Callable[[int], Sequence[str]], template: str = "{}") -> Score:
    """Names of each concept on its scenes; several names are averaged."""
    score = Score()
    for concept in np.unique(bench.concept):
        names = list(name_of(int(concept)))
        if not names:
            continue
        for split, kind in ((OTHER, "T"), (UNSEEN, "U")):
            rows = bench.rows(concept, kind)
            if len(rows):
                curves = iou_curves(bench.word_maps(bench.take(rows), names, template), bench.mask[rows])
                score.add(split, int(concept), curves.mean((0, 1)))
    return score


@dataclass
class Tokens:
    """Learned tokens (T, E) with the concept and the annotated scenes (shots,) of each."""

    values: Tensor
    concepts: np.ndarray
    scenes: list[np.ndarray]


def learn_tokens(bench: Bench, fit: Fit, shots: int = 1, anything: str = "thing") -> Tokens:
    """A token per annotated scene (one shot), or per run of ``shots`` annotated scenes of a concept."""
    rows, owner, concepts, scenes = list[int](), list[int](), list[int](), list[np.ndarray]()
    for concept in np.unique(bench.concept):
        annotated = bench.rows(concept, "A")
        starts = range(len(annotated)) if shots == 1 else range(0, len(annotated) - shots + 1, shots)
        for first in starts:
            rows += annotated[first : first + shots].tolist()
            owner += [len(concepts)] * shots
            concepts.append(int(concept))
            scenes.append(annotated[first : first + shots])
    nouns = torch.stack([bench.noun(bench.library.labels[c]) for c in concepts])
    thing = bench.noun(anything).expand_as(nouns)
    origin = {"noun": nouns, "thing": thing, "thing_noun": 0.5 * (nouns + thing)}[fit.start]
    values = learn(
        bench.net, bench.start, bench.take(rows), bench.target[rows], torch.tensor(owner), origin.clone(), fit
    )
    return Tokens(values, np.array(concepts), scenes)


def score_tokens(bench: Bench, tokens: Tokens, wrong: bool = False, seed: int = 0) -> Score:
    """Each token on drawings of its concept of families that were not annotated for it, and on unseen styles.

    ``wrong``: every token is replaced by one of another concept.
    """
    score, rng = Score(), np.random.default_rng(seed)
    for concept in np.unique(tokens.concepts):
        mine = np.where(tokens.concepts == concept)[0]
        used = mine if not wrong else rng.choice(np.where(tokens.concepts != concept)[0], len(mine), replace=False)
        for split, kind in ((OTHER, "T"), (UNSEEN, "U")):
            rows = bench.rows(concept, kind)
            if not len(rows):
                continue
            curves = iou_curves(bench.token_maps(bench.take(rows), tokens.values[used]), bench.mask[rows])
            found = []
            for column, number in enumerate(mine):
                annotated = bench.family[tokens.scenes[number]]
                fair = ~np.isin(bench.family[rows], annotated) if split == OTHER else np.ones(len(rows), bool)
                if fair.any():
                    found.append(curves[fair, column].mean(0))
            if found:
                score.add(split, int(concept), np.mean(found, 0))
    return score


def nearest_words(bench: Bench, concept: int, known: Sequence[str], count: int = 5) -> list[str]:
    """Known labels whose embedding is closest (cosine) to the concept's own name."""
    own = bench.noun(bench.library.labels[concept])
    table = torch.stack([bench.noun(name) for name in known])
    order = torch.nn.functional.cosine_similarity(table, own[None]).argsort(descending=True)
    return [known[i] for i in order[:count].tolist()]


def score_chosen_words(bench: Bench, candidates: Callable[[int], Sequence[str]]) -> Score:
    """Of a few words the one that fits an annotated scene best (any threshold), judged on the other drawings."""
    score = Score()
    for concept in np.unique(bench.concept):
        names, annotated = list(candidates(int(concept))), bench.rows(concept, "A")
        maps = bench.word_maps(bench.take(annotated), names)
        picks = iou_curves(maps, bench.mask[annotated][:, 2::4, 2::4]).max(2).argmax(1)  # every fourth pixel will do
        chosen = sorted(set(picks.tolist()))
        for split, kind in ((OTHER, "T"), (UNSEEN, "U")):
            rows = bench.rows(concept, kind)
            if not len(rows):
                continue
            curves = iou_curves(bench.word_maps(bench.take(rows), [names[p] for p in chosen]), bench.mask[rows])
            found = []
            for pick, scene in zip(picks, annotated, strict=True):
                fair = bench.family[rows] != bench.family[scene] if split == OTHER else np.ones(len(rows), bool)
                if fair.any():
                    found.append(curves[fair, chosen.index(pick)].mean(0))
            score.add(split, int(concept), np.mean(found, 0))
    return score


def paired(a: dict[int, float], b: dict[int, float], draws: int = 4000) -> dict[str, float]:
    """Mean difference over concepts with a bootstrap interval, in points, and the share of concepts with a > b."""
    difference = np.array([a[c] - b[c] for c in sorted(set(a) & set(b))]) * 100
    rng = np.random.default_rng(0)
    means = difference[rng.integers(0, len(difference), (draws, len(difference)))].mean(1)
    return {
        "points": float(difference.mean()),
        "low": float(np.quantile(means, 0.025)),
        "high": float(np.quantile(means, 0.975)),
        "better": float((difference > 0).mean()),
        "concepts": len(difference),
    }


def threshold(bin_: int) -> float:
    return bin_ / BINS
