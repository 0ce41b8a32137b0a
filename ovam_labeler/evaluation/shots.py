"""Several corrections of a class: one token, or an ensemble?  And can a wrong mask be told by its disagreement?

``python -m ovam_labeler.evaluation.shots --seed N`` on validation concepts of the embedded model.  Three right corrections are
learned as one token (Eq. 6 summed over the images), as three tokens whose maps are averaged, and as the mean of their
embeddings; each is scored on other pictures, beside the class's word.  Then one mask of a set of three or four is of another object, each in turn, and
:func:`ovam_labeler.contradiction.contradicting` says which it would set aside; so it does for the sets of right ones.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.contract import Attributor, Capture, ClassQuery, Needs, TokenExample
from backends.diffusion.tiny.training.composer import compose
from backends.discovery import load_backend
from ovam_labeler.agreement import agreement
from ovam_labeler.contradiction import Agreement, contradicting
from ovam_labeler.demo.scenes import Concept, Plan, Scene, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.gate import another_object
from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.propose import find_method
from ovam_labeler.truth import build_truths


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Sets of corrections: in how many the wrong one was set aside, and in how many a right one was.

    Attributes:
        wrong, caught: sets with a wrong mask, and those where it was set aside.
        right, lost: sets of right masks only, and those where one was set aside.
    """

    wrong: int = 0
    caught: int = 0
    right: int = 0
    lost: int = 0

    def __add__(self, other: Verdicts) -> Verdicts:
        return Verdicts(
            self.wrong + other.wrong, self.caught + other.caught, self.right + other.right, self.lost + other.lost
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One concept: mean IoU on its test pictures by way of learning, and verdicts over sets of three and of four."""

    name: str
    known: bool
    word: float
    one_shot: float
    joint: float
    ensemble: float
    mean_embedding: float
    of3: Verdicts
    of4: Verdicts


def measure(concept: Concept, scenes: SceneSet, attributor: Attributor, captures: dict[str, Capture]) -> Row:
    recipe = attributor.calibration.word_recipe if concept.has_word else attributor.calibration.token_recipe
    corrected, tests = scenes.of(concept.name, "correction"), scenes.of(concept.name, "test")
    right = [_example(concept.name, s, s.truth, captures[s.name]) for s in corrected]
    wrong = [_example(concept.name, s, another_object(s), captures[s.name]) for s in corrected]
    examples = [*right, *wrong]
    singles = [attributor.learn([e], recipe, label=concept.name).embedding for e in examples]
    joint = attributor.learn(examples[:3], recipe, label=concept.name).embedding
    queries = [attributor.token(e) for e in singles]

    def score(query: ClassQuery, cut: float = attributor.calibration.token_threshold) -> float:
        return fmean(_iou(attributor, captures[s.name], query, s.truth, cut) for s in tests)

    pictures = [(e.capture, e.target, e.weight) for e in examples]
    table = agreement(attributor, find_method("ovam"), pictures, queries)
    return Row(
        concept.name,
        concept.has_word,
        word=score(attributor.words(concept.name), attributor.calibration.word_threshold),
        one_shot=fmean(score(q) for q in queries[:3]),
        joint=score(attributor.token(joint)),
        ensemble=score(tuple(tokens for q in queries[:3] for tokens in q)),
        mean_embedding=score(attributor.token(np.mean(singles[:3], axis=0))),
        of3=verdicts(table, 3),
        of4=verdicts(table, 4),
    )


def verdicts(table: Agreement, size: int) -> Verdicts:
    """Over every set of so many corrections of which none, or one, is wrong.

    Args:
        table: of 2 n corrections: n right ones, then the same pictures with a wrong mask.
    """
    half = len(table) // 2
    found = Verdicts()
    for chosen in combinations(range(half), size):
        found += Verdicts(right=1, lost=bool(contradicting(table.of(chosen))))
        for k in range(size):
            mixed = [*chosen[:k], chosen[k] + half, *chosen[k + 1 :]]
            found += Verdicts(wrong=1, caught=k in contradicting(table.of(mixed)))
    return found


def _example(name: str, scene: Scene, mask: np.ndarray, capture: Capture) -> TokenExample:
    (truth,) = build_truths((mask.shape[0], mask.shape[1]), [(name, mask)], [name])
    return TokenExample(capture, truth.mask.astype(np.float32), (~truth.ignore).astype(np.float32))


def _iou(attributor: Attributor, capture: Capture, query: ClassQuery, truth: np.ndarray, cut: float) -> float:
    with torch.no_grad():
        heat = attributor.maps(capture, [query])[0]
    return iou(relative_map(heat, (truth.shape[0], truth.shape[1])) >= cut, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--novel", type=int, default=8)
    parser.add_argument("--known", type=int, default=4)
    parser.add_argument("--tests", type=int, default=4)
    parser.add_argument("--report", type=Path, help="write the rows as JSON to this file, concept by concept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backend = load_backend("embedded")
    reader = backend.reader()
    plan = Plan(novel=arguments.novel, known=arguments.known, corrections=5, tests=arguments.tests)
    scenes = make_scenes(load_pack("val"), arguments.seed, compose, plan)
    rows: list[Row] = []
    for concept in scenes.concepts:
        mine = [s for s in scenes.scenes if s.concept == concept.name]
        captures = {s.name: reader.capture(s.image, Needs()) for s in mine}
        rows.append(measure(concept, scenes, backend.attributor, captures))
        if arguments.report:
            arguments.report.write_text(json.dumps([asdict(r) for r in rows], indent=1), encoding="utf-8")
    for group, what in ((False, "new classes"), (True, "known words")):
        of = [r for r in rows if r.known == group]
        if of:
            ways = ("word", "one_shot", "joint", "ensemble", "mean_embedding")
            print(f"{what} ({len(of)}): " + ", ".join(f"{w} {fmean(getattr(r, w) for r in of):.3f}" for w in ways))
    for size in (3, 4):
        total = sum((getattr(r, f"of{size}") for r in rows), Verdicts())
        print(
            f"of {size}: the wrong one set aside in {total.caught} of {total.wrong} sets ({total.caught / total.wrong:.0%}), a right "
            f"one in {total.lost} of {total.right} sets of right ones ({total.lost / total.right:.0%})"
        )


if __name__ == "__main__":
    main()
