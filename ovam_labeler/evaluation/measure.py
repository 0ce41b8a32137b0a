"""Measures what one correction is worth: maps before and after, against exact truth, thresholds picked elsewhere.

The figures skip the presence decision and use relative maps (Eq. 9).  A threshold is picked for each kind of map on the
*other* concepts of its group (with or without a word), never on the concept that is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ovam_labeler.demo.scenes import Concept, Scene, SceneSet
from ovam_labeler.evaluation.metrics import BINS, iou, iou_curve, leave_one_out, min_max
from ovam_labeler.evaluation.probe import Probe
from token_store.entities import Scope, TokenVersion

#: Called after each concept with the share done, 0..1.
Tick = Callable[[float], None]

#: Test scenes a concept whose maps are kept for the report's pictures (one of each style).
SHOWN = 2


@dataclass(slots=True)
class Kind:
    """Curves of one kind of map: concept -> (scenes, BINS), and the maps that are shown."""

    curves: dict[str, np.ndarray] = field(default_factory=dict)
    shown: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, concept: str, maps: Sequence[np.ndarray], scenes: Sequence[Scene]) -> None:
        self.curves[concept] = np.stack([iou_curve(m, s.truth) for m, s in zip(maps, scenes, strict=True)])
        self.shown[concept] = [min_max(m).astype(np.float16) for m in maps[:SHOWN]]

    def thresholds(self, concepts: Sequence[Concept]) -> dict[str, int]:
        """Leave-one-concept-out threshold index of each concept, within its group."""
        picked: dict[str, int] = {}
        for has_word in (False, True):
            group = {
                c.name: self.curves[c.name].mean(0)
                for c in concepts
                if c.has_word == has_word and c.name in self.curves
            }
            if len(group) > 1:
                picked |= leave_one_out(group)
            else:  # a single concept: nothing else of its group to pick on, so the other group decides
                others = [c.mean(0) for name, c in self.curves.items() if name not in group]
                picked |= {name: int(np.mean(others, axis=0).argmax()) if others else BINS // 2 for name in group}
        return picked


@dataclass(slots=True)
class Learned:
    """What the store holds for a concept after a stage: the newest version, and whether the product uses it."""

    version: TokenVersion
    used: bool


class Measurement:
    """Collects curves stage by stage.  Stages: ``measure_words``, then ``measure_tokens`` for each count of corrections.

    Attributes:
        chosen: concept -> the word that was best on its corrected scene.
        kinds: ``"own_word"``, ``"word"`` (the chosen one), and for each stage ``"<stage>"`` (own token), ``"<stage>:wrong"``.
        learned: stage -> concept -> :class:`Learned`.
    """

    def __init__(self, probe: Probe, scenes: SceneSet) -> None:
        self.probe, self.scenes = probe, scenes
        self.kinds: dict[str, Kind] = {"own_word": Kind(), "word": Kind()}
        self.chosen: dict[str, str] = {}
        self.learned: dict[str, dict[str, Learned]] = {}

    def measure_words(self, tick: Tick = lambda _: None) -> None:
        """Best of own name, "thing" and the nearest known words, chosen on the corrected scene at its best threshold."""
        for i, concept in enumerate(self.scenes.concepts):
            candidates = self.probe.candidates(concept.name)
            corrected = self.scenes.of(concept.name, "correction")[0]
            maps = self.probe.relative(corrected, [c.query for c in candidates])
            best = candidates[int(np.argmax([iou_curve(m, corrected.truth).max() for m in maps]))]
            self.chosen[concept.name] = best.word
            tests = self.scenes.of(concept.name, "test")
            pairs = [self.probe.relative(s, [candidates[0].query, best.query]) for s in tests]
            self.kinds["own_word"].add(concept.name, [p[0] for p in pairs], tests)
            self.kinds["word"].add(concept.name, [p[1] for p in pairs], tests)
            tick((i + 1) / len(self.scenes.concepts))

    def measure_tokens(self, stage: str, scope: Scope, tick: Tick = lambda _: None) -> None:
        """Maps of each concept's newest token and of the next concept's, as the store holds them now."""
        store = self.probe.app.store
        names = [c.name for c in self.scenes.concepts]
        active = store.find_active(scope, names)
        found = self.learned[stage] = {}
        for token in store.list_tokens(scope):
            if token.class_name in names and (versions := store.list_versions(scope, token.class_name)):
                newest, used = versions[-1], active.get(token.class_name)
                # What the product uses is what is measured: the active version, else the newest that was refused.
                found[token.class_name] = Learned(used or newest, used is not None)
        own, wrong = self.kinds.setdefault(stage, Kind()), self.kinds.setdefault(f"{stage}:wrong", Kind())
        for i, concept in enumerate(self.scenes.concepts):
            if concept.name not in found:
                continue
            queries = [self.probe.attributor.token(found[concept.name].version.embedding)]
            other = self._other(concept, found)
            if other is not None:
                queries.append(self.probe.attributor.token(found[other].version.embedding))
            tests = self.scenes.of(concept.name, "test")
            maps = [self.probe.relative(s, queries) for s in tests]
            own.add(concept.name, [m[0] for m in maps], tests)
            if other is not None:
                wrong.add(concept.name, [m[1] for m in maps], tests)
            tick((i + 1) / len(self.scenes.concepts))

    def _other(self, concept: Concept, found: dict[str, Learned]) -> str | None:
        """The next concept of the group that has a token, going round."""
        group = [c.name for c in self.scenes.concepts if c.has_word == concept.has_word]
        at = group.index(concept.name)
        return next((n for n in group[at + 1 :] + group[:at] if n in found), None)

    def rows(self) -> list[dict[str, Any]]:
        """The report's ``concepts``; values 0..1, ``None`` where nothing was learned."""
        thresholds = {name: kind.thresholds(self.scenes.concepts) for name, kind in self.kinds.items()}
        return [self._row(concept, thresholds) for concept in self.scenes.concepts]

    def _row(self, concept: Concept, thresholds: dict[str, dict[str, int]]) -> dict[str, Any]:
        name = concept.name
        tests = self.scenes.of(name, "test")
        same = np.array([s.same_style for s in tests])

        def values(kind: str, threshold_of: str | None = None) -> np.ndarray | None:
            curves, at = (
                self.kinds.get(kind, Kind()).curves.get(name),
                thresholds.get(threshold_of or kind, {}).get(name),
            )
            return None if curves is None or at is None else curves[:, at]

        def after(stage: str) -> np.ndarray | None:
            known = self.learned.get(stage, {}).get(name)
            # The product proposes by the label's own word where no token is active.
            return values(stage) if known is not None and known.used else values("own_word")

        before, one, three = values("word"), after("after"), after("after3")
        row: dict[str, Any] = {
            "name": name,
            "has_word": concept.has_word,
            "images": len(tests),
            "before": _mean(before),
            "after": _mean(one),
            "after3": _mean(three),
            "wrong_token": _mean(values("after:wrong", "after")),
            "foreground": float(np.mean([iou(s.foreground, s.truth) for s in tests])),
            "before_word": self.chosen.get(name),
            "own_word": _mean(values("own_word")),
            "token": _mean(values("after")),
            "token3": _mean(values("after3")),
            "uses": {
                s: "token" if s in self.learned and name in found and found[name].used else "word"
                for s, found in self.learned.items()
            },
            "same_style": {"before": _mean(before, same), "after": _mean(one, same), "after3": _mean(three, same)},
            "other_style": {"before": _mean(before, ~same), "after": _mean(one, ~same), "after3": _mean(three, ~same)},
            "thresholds": {kind: at[name] / BINS for kind, at in thresholds.items() if name in at and ":" not in kind},
        }
        return row


def _mean(values: np.ndarray | None, where: np.ndarray | None = None) -> float | None:
    if values is None:
        return None
    chosen = values if where is None else values[where]
    return float(chosen.mean()) if chosen.size else None
