"""Plays the whole session of an annotator and measures each stage, whatever carries the corrections.

Predict all -> correct one mask a concept -> wait -> predict again -> correct two more a concept -> wait -> predict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ovam_labeler.demo.scenes import Scene, SceneSet
from ovam_labeler.evaluation import presence
from ovam_labeler.evaluation.measure import Measurement, Tick
from ovam_labeler.evaluation.probe import Probe
from token_store.entities import Scope

#: Begins a step of the session: its text gives the callback that takes the share done.
Steps = Callable[[str], Tick]

#: Masks as they were served: scene name -> label -> bool (H, W); absent labels are missing.
Served = Mapping[str, Mapping[str, np.ndarray]]

STAGES = ("before", "after", "after3")


class Loop(Protocol):
    """What carries predictions and corrections: Label Studio's API, or the services directly."""

    @property
    def scope(self) -> Scope: ...

    def predict(self, scenes: Sequence[Scene], tick: Tick) -> Served:
        """Ask for predictions of all labels and return what is stored for each scene."""

    def correct(self, scenes: Sequence[Scene], tick: Tick) -> None:
        """Submit, for each scene, its concept's mask edited to the exact truth."""

    def settle(self, tick: Tick) -> None:
        """Wait until every correction is learned.  Raises OvamError when a job failed."""


@dataclass(slots=True)
class Played:
    """What a session gave.

    Attributes:
        served, judged: by stage (:data:`STAGES`).
        timings: step -> seconds.
    """

    scenes: SceneSet
    measurement: Measurement
    served: dict[str, Served] = field(default_factory=dict)
    judged: dict[str, list[presence.Judgement]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - begin


def play(loop: Loop, probe: Probe, scenes: SceneSet, steps: Steps) -> Played:
    """Run the session; figures are read from the store and the cache the product itself uses."""
    played = Played(scenes, Measurement(probe, scenes))
    with played.timed("predict_before"):
        played.served["before"] = loop.predict(scenes.scenes, steps("Predicting all pictures by words"))
    with played.timed("measure"):
        played.measurement.measure_words(steps("Measuring words"))
        played.judged["before"] = presence.judge(probe, scenes, loop.scope, steps("Offering ten labels, by words"))
    first = [s for s in scenes.scenes if s.role == "correction" and s.index == 0]
    more = [s for s in scenes.scenes if s.role == "correction" and s.index > 0]
    for stage, corrected, count in (("after", first, "one mask"), ("after3", more, "two more masks")):
        if not corrected:
            continue
        with played.timed(f"correct_{stage}"):
            loop.correct(corrected, steps(f"Correcting {count} a concept"))
        with played.timed(f"learn_{stage}"):
            loop.settle(steps("Learning"))
        tests = [s for s in scenes.scenes if s.role == "test"]
        with played.timed(f"predict_{stage}"):
            played.served[stage] = loop.predict(tests, steps("Predicting again"))
        with played.timed("measure"):
            played.measurement.measure_tokens(stage, loop.scope, steps("Measuring tokens"))
            played.judged[stage] = presence.judge(probe, scenes, loop.scope, steps("Offering ten labels"))
    return played
