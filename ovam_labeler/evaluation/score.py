"""Does the score know when a mask is wrong?  ``python -m ovam_labeler.evaluation.score``.

Composed validation scenes are offered ten labels of which one to three are there.  Of the masks that the product draws, the
score should rank those that are right: AUC of "IoU with the exact mask is at least .5" (0 where the label is not there), and
Spearman's correlation with the IoU, beside simpler scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from backends.attention.binarize import relative_map
from ovam_labeler.domain import Label, Proposal
from ovam_labeler.evaluation.judged_scenes import JudgedScenes, print_table
from ovam_labeler.evaluation.metrics import auc, iou
from ovam_labeler.propose import threshold_of

#: IoU from which on a mask counts as right.
RIGHT = 0.5


def mean_heat(proposal: Proposal) -> float:
    """Mean of the heat map inside the mask: what one would take for a score at first."""
    low, high = float(proposal.soft.min()), float(proposal.soft.max())
    heat = relative_map(torch.from_numpy(proposal.soft), proposal.mask.shape) * (high - low) + low
    return float(heat[proposal.mask].mean())


def margin(proposal: Proposal, threshold: float) -> float:
    """Mean height above the threshold inside the mask, as a share of what is left above it."""
    soft = relative_map(torch.from_numpy(proposal.soft), proposal.mask.shape)
    return float(np.clip((soft[proposal.mask] - threshold).mean() / (1 - threshold), 0, 1))


def agreement(proposal: Proposal, threshold: float) -> float:
    """Share of the pixels above the threshold that no other label has taken."""
    above = relative_map(torch.from_numpy(proposal.soft), proposal.mask.shape) >= threshold
    return float((proposal.mask & above).sum() / max(above.sum(), 1))


#: Scores by name, of a proposal and its threshold; the product's own first, from presence and margin.
SCORES: Mapping[str, Callable[[Proposal, float], float]] = {
    "score": lambda p, _: p.score,
    "score x agreement with other labels": lambda p, threshold: p.score * agreement(p, threshold),
    "presence alone": lambda p, _: p.presence,
    "margin alone": margin,
    "mean heat in the mask": lambda p, _: mean_heat(p),
}


def measure(judged: JudgedScenes) -> list[dict[str, Any]]:
    """One row a drawn mask: its label, kind, IoU and every score."""
    rows = []
    for scene in judged.tests:
        labels = [Label(name) for name in judged.scenes.offered(scene)]
        for p in judged.app.proposer.propose(judged.probe.image(scene), labels, judged.scope, judged.options):
            if p.present and p.mask.any():
                truth = scene.masks.get(p.label)
                found = 0.0 if truth is None else iou(p.mask, truth)
                threshold = threshold_of(judged.probe.attributor.calibration, p.source)
                scores = {name: score(p, threshold) for name, score in SCORES.items()}
                rows.append({"scene": scene.name, "label": p.label, "kind": p.source, "iou": found, **scores})
    return rows


def table(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Figures of each score over all masks and by kind."""
    found: dict[str, Any] = {}
    for kind in ("all", "word", "token"):
        chosen = [row for row in rows if kind in ("all", row["kind"])]
        right = [row for row in chosen if row["iou"] >= RIGHT]
        wrong = [row for row in chosen if row["iou"] < RIGHT]
        if not right or not wrong:
            continue
        figures = {
            name: {
                "auc": auc([row[name] for row in right], [row[name] for row in wrong]),
                "spearman": spearman([row[name] for row in chosen], [row["iou"] for row in chosen]),
            }
            for name in SCORES
        }
        found[kind] = {"masks": len(chosen), "right": len(right), **figures}
    ordered = sorted(rows, key=lambda row: row["score"])
    found["IoU by fifth of the score, lowest first"] = [
        float(np.mean([row["iou"] for row in part])) for part in np.array_split(np.array(ordered, object), 5)
    ]
    return found


def spearman(first: list[float], second: list[float]) -> float:
    """Rank correlation -1..1; nan where either does not vary."""
    one, other = (_ranks(np.asarray(values, np.float64)) for values in (first, second))
    if not one.std() or not other.std():
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ties share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: np.ndarray = (ends - (counts - 1) / 2)[inverse]
    return mean


def main() -> None:
    print_table(__doc__, measure, table)


if __name__ == "__main__":
    main()
