"""Known words: their maps, other ways to ask for them, absent words, tokens of them, presence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.contract import ClassQuery
from backends.diffusion.tiny.training.synonyms import unseen_synonyms
from ovam_labeler.evaluation.embedded.bench import Bench, Tally, absolute_curve, own_share, relative_curve
from ovam_labeler.evaluation.embedded.drawings import Picture
from ovam_labeler.evaluation.presence import OFFERED

#: Words that compete for the object's pixels.
RIVALS = 20
SENTENCE = "a photograph of a {}"


def measure_known(bench: Bench, pictures: Sequence[Picture], trained: Sequence[str], seed: int = 0) -> Tally:
    """Rows of known concepts. ``trained``: labels of the training's concepts."""
    tally, rng, attributor = Tally(), np.random.default_rng(seed), bench.attributor
    names = sorted({p.concept.name for p in pictures})
    words: dict[str, ClassQuery] = {name: attributor.words(name) for name in {*names, *trained}}
    known_words = getattr(attributor, "known_words", None) or frozenset()
    calibration = attributor.calibration
    for name in names:
        mine = [p for p in pictures if p.concept.name == name]
        gentle = bench.learn([p for p in mine if p.kind == "annotated"][:1], calibration.word_recipe)
        sentence = attributor.words(name, SENTENCE.format(name))
        synonyms = [attributor.words(s) for s in unseen_synonyms(name, known_words)]
        for picture in mine:
            if picture.kind == "annotated":
                continue
            absent = [w for w in trained if w not in picture.masks]
            rivals = [words[absent[i]] for i in rng.choice(len(absent), RIVALS - 1, replace=False)]
            maps = bench.maps(picture, [words[name], *rivals, sentence, gentle, *synonyms])
            tally.curve("word", picture, relative_curve(picture, maps[0]))
            tally.curve("word, absolute", picture, absolute_curve(picture, maps[0]))
            for k in (1, 2, 3):
                tally.curve("absent word, absolute", picture, absolute_curve(picture, maps[k]))
            tally.value("word, refined", picture, bench.refined(picture, maps[0], calibration.word_threshold))
            tally.value("among 20, maps", picture, own_share(picture, maps[:RIVALS]))
            if (logits := bench.logits(picture, [words[name], *rivals])) is not None:
                tally.value("among 20, logits", picture, own_share(picture, logits))
            tally.curve("sentence", picture, relative_curve(picture, maps[RIVALS]))
            tally.curve("gentle token", picture, relative_curve(picture, maps[RIVALS + 1]))
            for heat in maps[RIVALS + 2 :]:
                tally.curve("unseen synonym", picture, relative_curve(picture, heat))
            if synonyms:
                tally.curve("word that has an unseen synonym", picture, relative_curve(picture, maps[0]))
            offered = _offered(picture, names, rng)
            for label, features in zip(offered, bench.features(picture, [words[n] for n in offered]), strict=True):
                tally.judged("word", picture, (features, label in picture.masks))
        bench.forget()
    return tally


def _offered(picture: Picture, names: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Ten labels: those that are there, and others."""
    there = [n for n in names if n in picture.masks]
    absent = [n for n in names if n not in picture.masks]
    fill = rng.choice(len(absent), min(len(absent), OFFERED - len(there)), replace=False)
    return [*there, *(absent[i] for i in fill)]
