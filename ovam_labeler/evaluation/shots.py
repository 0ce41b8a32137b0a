"""Several corrections of a class: one token, or an ensemble?  And can a wrong mask be told by its disagreement?

``python -m ovam_labeler.evaluation.shots --seed N`` on validation concepts of the embedded model.  Three right corrections are
learned as one token (Eq. 6 summed over the images), as three tokens whose maps are averaged, and as the mean of their
embeddings; each is scored on other pictures.  Then a fourth correction is added, right or of another object, and the ratio
that :func:`ovam_labeler.promotion.contradicting` decides by is printed for both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
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
from ovam_labeler.demo.scenes import Concept, Plan, Scene, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.gate import another_object
from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.promotion import AGREEMENT_RATIO
from ovam_labeler.truth import build_truths


@dataclass(frozen=True, slots=True)
class Row:
    """One concept: mean IoU on its test pictures by way of learning, and agreement ratios of a fourth correction.

    Attributes:
        good3, bad3: the ratio in a set of three, the last one right or wrong; good4, bad4: in a set of four.
    """

    name: str
    known: bool
    one_shot: float
    joint: float
    ensemble: float
    mean_embedding: float
    good3: float
    bad3: float
    good4: float
    bad4: float


def measure(concept: Concept, scenes: SceneSet, attributor: Attributor, captures: dict[str, Capture]) -> Row:
    recipe = attributor.calibration.word_recipe if concept.has_word else attributor.calibration.token_recipe
    cut = attributor.calibration.token_threshold
    corrected, tests = scenes.of(concept.name, "correction"), scenes.of(concept.name, "test")
    examples = [_example(concept.name, s, s.truth, captures[s.name]) for s in corrected]
    examples.append(_example(concept.name, corrected[3], another_object(corrected[3]), captures[corrected[3].name]))
    singles = [attributor.learn([e], recipe, label=concept.name).embedding for e in examples]
    joint = attributor.learn(examples[:3], recipe, label=concept.name).embedding
    queries = [attributor.token(e) for e in singles]

    def score(query: ClassQuery) -> float:
        return fmean(_iou(attributor, captures[s.name], query, s.truth, cut) for s in tests)

    table = np.full((5, 5), np.nan)
    for i, example in enumerate(examples):
        for j, query in enumerate(queries):
            if i != j:
                table[i, j] = _iou(attributor, example.capture, query, example.target >= 0.5, cut)
    return Row(
        concept.name,
        concept.has_word,
        one_shot=fmean(score(q) for q in queries[:3]),
        joint=score(attributor.token(joint)),
        ensemble=score(tuple(tokens for q in queries[:3] for tokens in q)),
        mean_embedding=score(attributor.token(np.mean(singles[:3], axis=0))),
        good3=ratio(table, (0, 1, 3)),
        bad3=ratio(table, (0, 1, 4)),
        good4=ratio(table, (0, 1, 2, 3)),
        bad4=ratio(table, (0, 1, 2, 4)),
    )


def ratio(table: np.ndarray, chosen: Sequence[int]) -> float:
    """Agreement of the last of ``chosen`` with the others, over the others' among themselves."""
    both = (table + table.T) / 2
    *rest, last = chosen
    return fmean(both[last, i] for i in rest) / max(fmean(both[i, j] for i, j in combinations(rest, 2)), 1e-6)


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
    plan = Plan(novel=arguments.novel, known=arguments.known, corrections=4, tests=arguments.tests)
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
            ways = ("one_shot", "joint", "ensemble", "mean_embedding")
            print(f"{what} ({len(of)}): " + ", ".join(f"{w} {fmean(getattr(r, w) for r in of):.3f}" for w in ways))
    for count in (3, 4):
        good, bad = ([getattr(r, f"{kind}{count}") for r in rows] for kind in ("good", "bad"))
        caught, lost = (sum(x < AGREEMENT_RATIO for x in values) for values in (bad, good))
        print(
            f"of {count}: ratio of a right one {min(good):.2f} to {max(good):.2f}, of a wrong one {min(bad):.2f} to {max(bad):.2f}; "
            f"under {AGREEMENT_RATIO}: {caught} of {len(bad)} wrong, {lost} of {len(good)} right"
        )


if __name__ == "__main__":
    main()
