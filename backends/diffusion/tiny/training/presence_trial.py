"""Label sets asked for on test scenes, with the features that decide presence; words and learned tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from backends.attention.presence import fit_presence, presence_features, presence_probability

from .bench import Bench
from .measure import Tokens

SIZES = (1, 2, 3, 5, 8, 12)  # labels asked for together


@dataclass
class Trials:
    """One entry per (scene, label)."""

    features: list[dict[str, float]]
    present: list[bool]
    learned: list[bool]

    def chosen(self, learned: bool) -> tuple[list[dict[str, float]], list[bool]]:
        keep = [i for i, value in enumerate(self.learned) if value == learned]
        return [self.features[i] for i in keep], [self.present[i] for i in keep]


def known_trials(bench: Bench, rng: np.random.Generator, kinds: str = "T") -> Trials:
    """Known words on scenes of known concepts: those that are there, and random other known words."""
    trials = Trials([], [], [])
    labels, base = bench.library.labels, bench.library.known
    for row in np.where(np.isin(bench.kind, list(kinds)))[0]:
        inside = [int(bench.concept[row]), *(int(d) for d in bench.distractors[row] if d >= 0)]
        asked = _asked(inside, base, rng)
        maps = bench.word_maps(bench.take([row]), [labels[c] for c in asked])[0]
        _record(trials, presence_features(maps), [c in inside for c in asked], [False] * len(asked))
    return trials


def token_trials(bench: Bench, tokens: Tokens, rng: np.random.Generator, kinds: str = "T") -> Trials:
    """A learned token of each of some novel concepts together with known words, half of them present."""
    trials = Trials([], [], [])
    labels, base, novel = bench.library.labels, bench.library.known, np.unique(tokens.concepts)
    for row in np.where(np.isin(bench.kind, list(kinds)))[0]:
        inside = [int(bench.concept[row]), *(int(d) for d in bench.distractors[row] if d >= 0)]
        asked = _asked(inside, [*base, *novel.tolist() * max(1, len(base) // len(novel))], rng)
        learned = [c in novel for c in asked]
        words = [labels[c] for c, is_token in zip(asked, learned, strict=True) if not is_token]
        picks = [int(rng.choice(np.where(tokens.concepts == c)[0])) for c in asked if c in novel]
        own = [s for p in picks for s in tokens.scenes[p]]
        if any(bench.sprite[s] == bench.sprite[row] for s in own):  # the very drawing it was learned on
            continue
        queries = bench.take([row])
        found = iter(bench.token_maps(queries, tokens.values[picks])[0]) if picks else iter(())
        spoken = iter(bench.word_maps(queries, words)[0]) if words else iter(())
        maps = torch.stack([next(found) if is_token else next(spoken) for is_token in learned])
        _record(trials, presence_features(maps), [c in inside for c in asked], learned)
    return trials


def _asked(inside: list[int], pool: list[int], rng: np.random.Generator) -> list[int]:
    size = int(rng.choice(SIZES))
    asked = [int(rng.choice(inside))] if rng.random() < 0.6 else []
    if len(inside) > 1 and size > 2 and rng.random() < 0.5:
        asked += [c for c in inside if c not in asked][:1]
    while len(asked) < size:
        other = int(pool[rng.integers(len(pool))])
        if other not in asked and other not in inside:
            asked.append(other)
    return [asked[i] for i in rng.permutation(len(asked))]


def _record(trials: Trials, features: list[dict[str, float]], present: list[bool], learned: list[bool]) -> None:
    trials.features += features
    trials.present += present
    trials.learned += learned


def fit_at_recall(features: list[dict[str, float]], present: list[bool], recall: float = 0.8) -> dict[str, float]:
    """Logistic weights whose probability crosses one half exactly where ``recall`` of the present labels pass."""
    weights = fit_presence(features, present, ridge=1e-3)
    logits = np.sort([_logit(f, weights) for f, p in zip(features, present, strict=True) if p])
    weights["bias"] -= float(logits[int(np.floor((1 - recall) * len(logits)))]) - 1e-6
    return {name: round(value, 5) for name, value in weights.items()}


def _logit(features: dict[str, float], weights: dict[str, float]) -> float:
    return sum(weights[k] * features.get(k, 0.0) for k in weights)


def judge(features: list[dict[str, float]], present: list[bool], weights: dict[str, float]) -> dict[str, float]:
    """Recall, share of absent labels judged present, and area under the curve."""
    p = np.array([presence_probability(f, weights) for f in features])
    truth = np.array(present)
    order = np.argsort(np.argsort(p)) + 1.0
    positives, negatives = truth.sum(), (~truth).sum()
    auc = (order[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return {
        "recall": float((p[truth] >= 0.5).mean()),
        "false": float((p[~truth] >= 0.5).mean()),
        "auc": float(auc),
        "present": int(positives),
        "absent": int(negatives),
    }
