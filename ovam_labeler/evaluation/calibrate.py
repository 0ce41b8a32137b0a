"""Thresholds and presence weights of a base model, on validation concepts only.

``python -m ovam_labeler.evaluation.calibrate --seeds 0,1,2,3 --write`` composes scenes of the pack's validation concepts (none
of which ``make demo-check`` uses), offers ten labels on each, learns a token from one scene a concept, and writes what it finds
into the model folder's ``ovam.json``.  Thresholds are the best relative ones (Eq. 9) for known words and for learned tokens;
presence weights are a logistic regression whose probability crosses one half where 80 % of the present labels pass.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.attention.presence import cut_at_recall, fit_presence, presence_features, presence_probability
from backends.contract import Attributor, Capture, ClassQuery, Needs, TokenExample
from backends.diffusion.tiny.training.composer import compose
from backends.discovery import load_backend
from ovam_labeler.demo.scenes import Concept, Plan, Scene, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.metrics import BINS, auc, iou_curve, painted_at_recall
from ovam_labeler.evaluation.presence import OFFERED
from ovam_labeler.propose import logits_of
from ovam_labeler.truth import build_truths

RECALL = 0.8


@dataclass(slots=True)
class Trials:
    """One kind of query (words or tokens): presence features with the truth, and IoU curves, by (has a word) group."""

    features: dict[bool, list[tuple[dict[str, float], bool]]] = field(default_factory=lambda: {True: [], False: []})
    curves: dict[bool, list[np.ndarray]] = field(default_factory=lambda: {True: [], False: []})
    #: The same where fewer labels are asked for: (features, there, has a word).
    fewer: list[tuple[dict[str, float], bool, bool]] = field(default_factory=list)

    def best(self, groups: Sequence[bool]) -> tuple[int, float]:
        """(threshold index, mean IoU) that is best over the groups, each counting the same."""
        mean = np.mean([np.mean(self.curves[g], axis=0) for g in groups], axis=0)
        return int(mean.argmax()), float(mean.max())

    def chosen(self, groups: Sequence[bool], *, fewer: bool = False) -> tuple[list[dict[str, float]], list[bool]]:
        """Features and truths of ten labels, with ``fewer`` those of one and of three labels as well."""
        rows = [row for g in groups for row in self.features[g]]
        rows += [(f, there) for f, there, has_word in self.fewer if fewer and has_word in groups]
        return [f for f, _ in rows], [there for _, there in rows]


def run_seed(seed: int, attributor: Attributor, reader: Any, needs: Needs, words: Trials, tokens: Trials) -> None:
    """Add one seed's scenes to the trials."""
    rng = np.random.default_rng(seed)
    scenes = make_scenes(load_pack("val"), seed, compose, Plan(novel=12, known=12, tests=8))
    captures: dict[str, Capture] = {}

    def capture(scene: Scene) -> Capture:
        if scene.name not in captures:
            captures[scene.name] = reader.capture(scene.image, needs)
        return captures[scene.name]

    by_word = {c.name: attributor.words(c.name) for c in scenes.concepts}
    by_token = {
        c.name: learned(c, scenes, attributor, capture(scenes.of(c.name, "correction")[0])) for c in scenes.concepts
    }
    has_word = {c.name: c.has_word for c in scenes.concepts}
    for concept in scenes.concepts:
        for scene in scenes.of(concept.name, "test"):
            labels = scenes.offered(scene, OFFERED)
            for trials, queries in ((words, by_word), (tokens, by_token)):
                with torch.no_grad():
                    asked = [queries[name] for name in labels]
                    maps = attributor.maps(capture(scene), asked)
                    logits = logits_of(attributor, capture(scene), asked)
                own = relative_map(maps[labels.index(concept.name)], scene.truth.shape)
                trials.curves[concept.has_word].append(iou_curve(own, scene.truth))
                for name, features in zip(labels, presence_features(maps, logits), strict=True):
                    trials.features[has_word[name]].append((features, name in scene.masks))
                trials.fewer += fewer_labels(
                    maps, logits, [name in scene.masks for name in labels], [has_word[n] for n in labels], rng
                )


def fewer_labels(
    maps: torch.Tensor, logits: torch.Tensor | None, there: list[bool], has_word: list[bool], rng: np.random.Generator
) -> list[tuple[dict[str, float], bool, bool]]:
    """Presence when one label is asked for alone, and when three are: users do both."""
    rows = []
    subsets = [
        [int(k) for k in rng.choice(len(there), 3, False)],
        [int(rng.choice(np.flatnonzero(there)))],
        [int(rng.integers(len(there)))],
    ]
    for picked in subsets:
        for k, features in zip(
            picked, presence_features(maps[picked], None if logits is None else logits[picked]), strict=True
        ):
            rows.append((features, there[k], has_word[k]))
    return rows


def learned(concept: Concept, scenes: SceneSet, attributor: Attributor, capture: Capture) -> ClassQuery:
    """The token of a concept's first correction scene, by the model's own recipe."""
    scene = scenes.of(concept.name, "correction")[0]
    (truth,) = build_truths(scene.truth.shape, [(concept.name, scene.truth)], [concept.name])
    example = TokenExample(capture, truth.mask.astype(np.float32), (~truth.ignore).astype(np.float32))
    recipe = attributor.calibration.word_recipe if concept.has_word else attributor.calibration.token_recipe
    return attributor.token(attributor.learn([example], recipe, label=concept.name).embedding)


def fit_at_recall(features: list[dict[str, float]], there: list[bool]) -> dict[str, float]:
    """Presence weights whose probability crosses one half where :data:`RECALL` of the present labels pass."""
    weights = fit_presence(features, there, ridge=3e-3)
    cut = cut_at_recall([presence_probability(f, weights) for f in features], there, RECALL)
    weights["bias"] -= float(np.log(cut / (1 - cut)))
    return {name: round(value, 5) for name, value in weights.items()}


def report(name: str, features: list[dict[str, float]], there: list[bool], weights: dict[str, float]) -> None:
    p = [presence_probability(f, weights) for f in features]
    present = [x for x, t in zip(p, there, strict=True) if t]
    absent = [x for x, t in zip(p, there, strict=True) if not t]
    painted = painted_at_recall(present, absent, RECALL)
    print(f"presence of {name}: AUC {auc(present, absent):.3f}, absent labels painted at recall .8 {painted:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seeds", default="0,1,2,3", help="seeds of the validation scenes")
    parser.add_argument("--write", type=Path, metavar="OVAM_JSON", help="write the result into this ovam.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backend = load_backend(arguments.model)
    attributor, reader = backend.attributor, backend.reader()
    words, tokens = Trials(), Trials()
    for seed in arguments.seeds.split(","):
        run_seed(int(seed), attributor, reader, Needs(), words, tokens)
        print(f"seed {seed} done", flush=True)
    for name, trials in (("word", words), ("token", tokens)):
        for group, what in ((True, "known"), (False, "new")):
            at, value = trials.best([group])
            print(f"{name} of {what} classes: IoU {value:.3f} at threshold {at / BINS:.3f}")
    both = (True, False)
    result: dict[str, Any] = {
        "word_threshold": words.best([True])[0] / BINS,
        # Known words' gentle tokens and new classes' tokens share one threshold.
        "token_threshold": tokens.best(both)[0] / BINS,
        "word_presence": fit_at_recall(*words.chosen([True], fewer=True)),
        "token_presence": fit_at_recall(*tokens.chosen(both, fewer=True)),
        "presence_cut": 0.5,
    }
    report("known words", *words.chosen([True]), result["word_presence"])
    report("new classes' words", *words.chosen([False]), result["word_presence"])
    report("new classes' tokens", *tokens.chosen([False]), result["token_presence"])
    report("known words' tokens", *tokens.chosen([True]), result["token_presence"])
    print(json.dumps(result))
    if arguments.write:
        stored = json.loads(arguments.write.read_text(encoding="utf-8"))
        stored["calibration"] |= result
        arguments.write.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
