"""Finding the pairs of a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backends.diffusion.tiny.training import tuner
from backends.diffusion.tiny.training.tuner import STEPS, Tuner


def settled(choices: list[int], seconds: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> Tuner:
    now = [0.0]
    monkeypatch.setattr(tuner.time, "perf_counter", lambda: now[0])
    found = Tuner(choices, "cpu")
    for _ in range(STEPS * len(choices)):
        assert not found.settled
        now[0] += seconds(found.pairs)
        found.step()
    assert found.settled
    return found


def test_a_step_that_costs_the_same_takes_as_much_as_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled([8, 16, 32], lambda pairs: 0.2, monkeypatch).pairs == 32


def test_where_time_grows_with_the_pairs_small_steps_teach_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled([8, 16, 32], lambda pairs: 0.01 * pairs, monkeypatch).pairs == 8


def test_the_first_steps_of_a_choice_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def seconds(pairs: int) -> float:
        calls.append(pairs)
        return 60.0 if calls.count(pairs) < 3 else 0.2

    assert settled([8, 32], seconds, monkeypatch).pairs == 32


def test_one_choice_is_no_choice() -> None:
    assert Tuner([8], "cpu").settled and Tuner([8], "cpu").pairs == 8
