"""Stage ``calibrate``: thresholds, token recipes and presence, on validation concepts only; writes ``calibration.json``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from . import presence_trial
from .bench import Bench
from .export import WEIGHTS
from .fits import Fit
from .measure import learn_tokens, score_tokens, score_words, threshold
from .sources import run_folder

NEW_CLASS = (
    Fit(),
    Fit(epochs=50),
    Fit(epochs=200),
    Fit(rate=0.03),
    Fit(rate=0.2),
    Fit(start="noun"),
    Fit(start="thing"),
    Fit(ridge=1e-4),
    Fit(ridge=1e-3),
    Fit(ridge=1e-2),
    Fit(balance=False),
    Fit(rate=0.2, ridge=1e-3),
    Fit("lbfgs", epochs=40, rate=1.0, ridge=1e-3),
    Fit("lbfgs", epochs=40, rate=1.0, ridge=1e-2),
    Fit("steps", epochs=2, rate=1.0),
    Fit("steps", epochs=4, rate=1.0),
)
KNOWN_WORD = tuple(
    Fit(start="noun", epochs=e, rate=r, ridge=g)
    for e, r, g in (
        (10, 0.01, 0),
        (10, 0.03, 0),
        (30, 0.01, 0),
        (30, 0.03, 0),
        (30, 0.03, 1e-3),
        (50, 0.03, 1e-2),
        (100, 0.05, 1e-2),
        (100, 0.05, 3e-2),
        (100, 0.05, 1e-1),
    )
)


def try_fits(bench: Bench, fits: tuple[Fit, ...]) -> dict[Fit, tuple[float, int]]:
    """Best IoU and its threshold bin of each fit, one shot."""
    result = {}
    for fit in fits:
        score = score_tokens(bench, learn_tokens(bench, fit))
        result[fit] = (score.at(score.best()), score.best())
        print(f"  {fit.title:52s} {result[fit][0]:.3f} at {threshold(result[fit][1]):.3f}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--quick", action="store_true", help="default recipes, no search")
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    known, novel = Bench(("known_validation",), a.weights), Bench(("novel_validation",), a.weights)
    labels = known.library.labels
    words = score_words(known, lambda c: [labels[c]])
    print(f"known words {words.at(words.best()):.3f} at {threshold(words.best()):.3f}")
    print(
        f"novel own words {score_words(novel, lambda c: [labels[c]]).mean().max():.3f}, thing {score_words(novel, lambda c: ['thing']).mean().max():.3f}"
    )
    fits = try_fits(novel, NEW_CLASS[:1] if a.quick else NEW_CLASS)
    shippable = {fit: v for fit, v in fits.items() if fit.how != "steps"}
    new = max(shippable, key=lambda f: shippable[f][0])
    gentle = try_fits(known, KNOWN_WORD[3:4] if a.quick else KNOWN_WORD)
    old = max(gentle, key=lambda f: gentle[f][0])
    rng = np.random.default_rng(0)
    spoken = presence_trial.known_trials(known, rng)
    trials = presence_trial.token_trials(novel, learn_tokens(novel, new), rng)
    word_presence = presence_trial.fit_at_recall(*spoken.chosen(False))
    token_presence = presence_trial.fit_at_recall(*trials.chosen(True))
    print("presence of words", presence_trial.judge(*spoken.chosen(False), word_presence))
    print("presence of tokens", presence_trial.judge(*trials.chosen(True), token_presence))
    result = {
        "word_threshold": threshold(words.best()),
        "token_threshold": threshold(fits[new][1]),
        "word_presence": word_presence,
        "token_presence": token_presence,
        "presence_cut": 0.5,
        "word_recipe": old.recipe,
        "token_recipe": new.recipe,
    }
    (run_folder() / "calibration.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
