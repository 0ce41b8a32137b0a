"""How many scene pairs a step should take on a machine nobody has measured: found in the first steps of training."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

STEPS, MEASURED = 14, 7  # of each choice, the last ones measured


class Tuner:
    """Goes through the choices, then stays with the one of most scenes a second.

    A larger choice must be worth its size: scenes of a large step teach less than those of several small ones.
    """

    def __init__(self, choices: Sequence[int], device: str) -> None:
        self.choices, self.device = list(choices), device
        self.rates: list[float] = []
        self.done, self.begin = 0, 0.0

    @property
    def pairs(self) -> int:
        """Scene pairs of the next step."""
        if len(self.choices) == 1:
            return self.choices[0]
        if len(self.rates) < len(self.choices):
            return self.choices[len(self.rates)]
        worth = [rate * choice**-0.25 for rate, choice in zip(self.rates, self.choices, strict=True)]
        return self.choices[worth.index(max(worth))]

    @property
    def settled(self) -> bool:
        """Whether nothing is measured any more."""
        return len(self.choices) == 1 or len(self.rates) == len(self.choices)

    def step(self) -> None:
        """To be called after each step."""
        if self.settled:
            return
        self.done += 1
        if self.done == STEPS - MEASURED:
            self.begin = self._now()
        elif self.done == STEPS:
            seconds = self._now() - self.begin
            self.rates.append(2 * self.pairs * MEASURED / seconds)
            self.done = 0
            print(f"{self.choices[len(self.rates) - 1]} pairs a step: {self.rates[-1]:.0f} scenes a second", flush=True)

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()
