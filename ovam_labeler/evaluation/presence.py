"""Presence: scenes offered ten labels of which one to three are there; what is missed, what is painted for nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ovam_labeler.demo.scenes import SceneSet
from ovam_labeler.domain import Label
from ovam_labeler.evaluation.measure import Tick
from ovam_labeler.evaluation.metrics import auc, painted_at_recall
from ovam_labeler.evaluation.probe import Probe
from ovam_labeler.options import project_options
from token_store.entities import Scope

#: Labels offered on a scene.
OFFERED = 10


@dataclass(frozen=True, slots=True)
class Judgement:
    """One label on one scene: is it there, was it painted, how sure was the model, by word or by token."""

    scene: str
    label: str
    has_word: bool
    there: bool
    painted: bool
    presence: float
    source: str


def judge(probe: Probe, scenes: SceneSet, scope: Scope, tick: Tick = lambda _: None) -> list[Judgement]:
    """Offer ten labels on every uncorrected scene, through the product's own proposer at its shipped cut."""
    known = {c.name: c.has_word for c in scenes.concepts}
    options = project_options(probe.app.settings)
    tests = [s for s in scenes.scenes if s.role == "test"]
    found: list[Judgement] = []
    for i, scene in enumerate(tests):
        labels = scenes.offered(scene, OFFERED)
        proposals = probe.app.proposer.propose(probe.image(scene), [Label(n) for n in labels], scope, options)
        found += [
            Judgement(
                scene.name,
                p.label,
                known[p.label],
                p.label in scene.masks,
                bool(p.present and p.mask.any()),
                float(p.presence),
                p.source,
            )
            for p in proposals
        ]
        tick((i + 1) / len(tests))
    return found


def summary(judgements: list[Judgement]) -> dict[str, float]:
    """Recall of labels that are there, and masks painted for absent labels per image."""
    there = [j.painted for j in judgements if j.there]
    images = len({j.scene for j in judgements})
    false = sum(j.painted for j in judgements if not j.there)
    return {
        "recall": sum(there) / len(there) if there else float("nan"),
        "false_masks_per_image": false / images if images else float("nan"),
    }


def at_recall(judgements: Iterable[Judgement], *, source: str, has_word: bool, recall: float = 0.8) -> dict[str, Any]:
    """Share of absent labels painted at the cut where ``recall`` of those there are; AUC; counts."""
    chosen = [j for j in judgements if j.source == source and j.has_word == has_word]
    present = [j.presence for j in chosen if j.there]
    absent = [j.presence for j in chosen if not j.there]
    return {
        "painted": painted_at_recall(present, absent, recall),
        "auc": auc(present, absent),
        "present": len(present),
        "absent": len(absent),
    }
