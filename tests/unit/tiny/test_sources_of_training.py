"""What training may see: nothing of the held-out concepts, and only what means something."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from backends.diffusion.tiny.loader import WEIGHTS
from backends.diffusion.tiny.training.clipart import is_held_out, known_label, title_name, words_of
from backends.diffusion.tiny.training.distributed import Clock
from backends.diffusion.tiny.training.lookalikes import appearance, conflicts, lookalikes


@pytest.fixture(scope="module")
def split() -> dict:
    return json.loads((WEIGHTS / "split.json").read_text())


def test_a_drawing_that_names_a_held_out_concept_is_left_out(split: dict) -> None:
    for name in (*split["novel_test"], *split["novel_validation"]):
        words = words_of(name)
        assert is_held_out(words), name
        if words[-1][-1] not in "shyf":
            assert is_held_out([*words[:-1], words[-1] + "s"]), name


def test_titles_become_names_only_if_all_their_words_mean_something() -> None:
    vocabulary = {"milk", "carton", "lion"}
    assert title_name("Milk carton", "x", vocabulary) == "milk carton"
    assert title_name("Clipart by Someone - contour_bear", "contour_lion", vocabulary) == "lion"
    assert title_name("milk cartone", "x", vocabulary) is None
    assert title_name("lion icon", "x", {"lion", "icon"}) is None


def test_a_name_joins_the_known_concept_it_ends_with() -> None:
    names = {"dog": "dog face", "hotdog": "hot dog"}
    assert known_label("bored dogs", names) == "dog face"
    assert known_label("hot dog", names) == "hot dog"
    assert known_label("anvil", names) is None


def test_lookalikes_are_nearest_in_colour_and_shape() -> None:
    def disc(colour: tuple[int, int, int], radius: int) -> np.ndarray:
        rows, columns = np.mgrid[:32, :32] - 16
        alpha = (rows**2 + columns**2 < radius**2) * 255
        return np.dstack([np.full((32, 32, 3), colour), alpha]).astype(np.uint8)

    pixels = {7: [disc((250, 20, 20), 12)], 8: [disc((240, 30, 30), 13)], 9: [disc((20, 20, 250), 5)]}
    assert lookalikes(pixels, most=1)[7].tolist() == [8]
    mirrored = disc((9, 200, 9), 9)
    mirrored[:, :8, 3] = 0
    assert np.allclose(appearance(mirrored), appearance(mirrored[:, ::-1]), atol=1e-3)


def test_concepts_that_share_a_name_are_no_fair_negatives() -> None:
    found = conflicts([["red apple", "apple"], ["green apple"], ["cat"], ["apple"]])
    assert found == [{1, 3}, {0, 3}, set(), {0, 1}]
    assert conflicts([["a face"], ["b face"], ["c face"]], most=2) == [set(), set(), set()]


def test_a_stopped_process_loses_little_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    clock = Clock(minutes=2.0, most=10.0)
    now[0] += 6.0
    assert clock.minutes() == pytest.approx(2.1)
    now[0] += 600.0
    assert clock.minutes() == pytest.approx(2.1 + 10 / 60)


def test_no_trained_word_names_a_held_out_concept(split: dict) -> None:
    held = {*split["novel_test"], *split["novel_validation"]}
    assert not held & {*split["known_words"]}
    assert not [w for w in split["known_words"] if re.fullmatch("(coconut|palm) tree|wheelchair|sailboat", w)]
