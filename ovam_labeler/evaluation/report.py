"""Joins what was measured into ``report.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovam_labeler.demo.scenes import SceneSet
from ovam_labeler.evaluation.metrics import iou, paired_bootstrap
from ovam_labeler.evaluation.play import Played, Served
from ovam_labeler.evaluation.presence import at_recall, summary

#: Figures every concept must have for a report to be complete.
FIGURES = ("before", "after", "after3", "wrong_token", "foreground")


def build_report(
    played: Played, *, seed: int, generated: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The report: its required keys as the contract of ``make demo-check`` says, and more beside them.

    IoU, recall and shares are 0..1, times are seconds.  What could not be measured is ``None``, never NaN.
    """
    rows = played.measurement.rows()
    for row in rows:
        row["served"] = {
            stage: _served_iou(served, played.scenes, row["name"]) for stage, served in played.served.items()
        }
    stages = {stage: summary(judged) for stage, judged in played.judged.items()}
    report = {
        "seed": seed,
        "concepts": rows,
        "lift_ci": lift_interval(rows),
        "absent": {
            "recall": {stage: s["recall"] for stage, s in stages.items()},
            "false_masks_per_image": {stage: s["false_masks_per_image"] for stage, s in stages.items()},
            "painted_at_recall_0.8": {
                "known_words": at_recall(played.judged.get("before", []), source="word", has_word=True),
                "words_never_trained": at_recall(played.judged.get("before", []), source="word", has_word=False),
                "learned_tokens": at_recall(played.judged.get("after", []), source="token", has_word=False),
                "learned_tokens_3": at_recall(played.judged.get("after3", []), source="token", has_word=False),
            },
        },
        "generated": dict(generated),
        "timings": dict(played.timings),
        "summary": summarize(rows),
        **extra,
    }
    cleaned: dict[str, Any] = clean(report)
    return cleaned


def lift_interval(rows: list[dict[str, Any]]) -> list[float | None]:
    """Paired 95 % bootstrap interval of ``after - before`` over concepts without a word."""
    lifts = [r["after"] - r["before"] for r in rows if not r["has_word"] and None not in (r["after"], r["before"])]
    return list(paired_bootstrap(lifts)) if lifts else [None, None]


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over concepts, for each group."""
    groups: dict[str, Any] = {}
    for name, has_word in (("without_word", False), ("with_word", True)):
        group = [r for r in rows if r["has_word"] == has_word]
        groups[name] = {"concepts": len(group), **{f: _mean([r[f] for r in group]) for f in (*FIGURES, "own_word")}}
    return groups


def missing(report: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing a complete report has and this one lacks; empty when it is complete."""
    absent = [
        f"Concept '{row['name']}' has no figure '{figure}'."
        for row in report["concepts"]
        for figure in FIGURES
        if row.get(figure) is None
    ]
    absent += [f"The interval 'lift_ci' has no value {i}." for i, v in enumerate(report["lift_ci"]) if v is None]
    for figure in ("recall", "false_masks_per_image"):
        absent += [
            f"'absent.{figure}.{stage}' is missing."
            for stage in ("before", "after")
            if report["absent"][figure].get(stage) is None
        ]
    if not report["generated"].get("images"):
        absent.append("No image was generated.")
    if report["generated"].get("unet_passes") is None:
        absent.append("The UNet passes while predicting generated images were not counted.")
    if not report["timings"]:
        absent.append("There are no timings.")
    return absent


def clean(value: Any) -> Any:
    """Plain JSON values: numpy numbers as Python's, NaN and infinities as None, floats with six digits."""
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _served_iou(served: Served, scenes: SceneSet, concept: str) -> float | None:
    """Mean IoU of the masks as served (product thresholds, presence counted: a missing mask is 0)."""
    scores = [
        iou(served[s.name].get(concept, np.zeros_like(s.truth)), s.truth)
        for s in scenes.of(concept, "test")
        if s.name in served
    ]
    return _mean(scores)


def _mean(values: list[Any]) -> float | None:
    numbers = [v for v in values if v is not None]
    return float(np.mean(numbers)) if numbers else None
