"""Figures of the embedded model: thresholds from validation, bars judged the right way round."""

from __future__ import annotations

import numpy as np
import torch

from backends.diffusion.tiny.training.synonyms import SYNONYMS, unseen_synonyms
from ovam_labeler.demo.scenes import Concept, Sprite
from ovam_labeler.evaluation.embedded.bench import Tally, absolute_curve, own_share, relative_curve
from ovam_labeler.evaluation.embedded.drawings import Picture, _plan
from ovam_labeler.evaluation.embedded.table import Figures, Line
from ovam_labeler.evaluation.metrics import BINS


def picture(name: str = "cat", kind: str = "seen", side: int = 8) -> Picture:
    truth = np.zeros((side, side), bool)
    truth[: side // 2] = True
    concept = Concept(name, True, ())
    return Picture(f"{name} {kind}", concept, kind, "noto", np.zeros((side, side, 3), np.uint8), {name: truth})  # type: ignore[arg-type]


def test_curves_are_relative_and_absolute() -> None:
    shown = picture()
    heat = torch.zeros(8, 8)
    heat[:4] = 0.2
    assert relative_curve(shown, heat)[BINS // 2] == 1.0
    absolute = absolute_curve(shown, heat)
    assert absolute[BINS // 10] == 1.0 and absolute[BINS // 2] == 0.0


def test_own_share_counts_pixels_of_the_object_only() -> None:
    maps = torch.zeros(2, 8, 8)
    maps[0, :2], maps[1, 2:] = 1.0, 1.0
    assert own_share(picture(), maps) == 0.5


def test_the_threshold_comes_from_validation() -> None:
    def tally(best: int) -> Tally:
        found = Tally()
        curve = np.zeros(BINS)
        curve[best], curve[5] = 1.0, 0.25
        found.curve("word", picture(), curve)
        return found

    figures = Figures({"val": tally(5), "test": tally(9)}, {}, {})
    values, at = figures.iou(figures.known, "word")
    assert at == 5 and values == {"seen": 0.25, "unseen": None}


def test_bars_are_upper_or_lower() -> None:
    assert Line("x", {"seen": 0.5}, {"seen": 0.4}).met("seen")
    assert not Line("x", {"seen": 0.5}, {"seen": 0.4}, most=True).met("seen")
    assert Line("x", {"seen": None}, {"seen": 0.4}).met("seen") is None
    assert "MISS" in str(Line("x", {"seen": 0.3}, {"seen": 0.4}))


def test_every_token_meets_families_it_was_not_learned_on() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    sprites = tuple(Sprite("cow", f"s{i}", f"f{i}", pixels) for i in range(4))
    plan = _plan(Concept("cow", False, sprites), [], 3)
    annotated = [s.family for kind, _, s in plan if kind == "annotated"]
    tested = {s.family for kind, _, s in plan if kind == "seen"}
    assert len(set(annotated)) == 3
    assert all(tested - {family} for family in annotated)


def test_synonyms_the_model_knows_are_not_unseen() -> None:
    assert unseen_synonyms("metro", {"subway"}) == []
    assert all(unseen_synonyms(name, set()) for name in SYNONYMS)
