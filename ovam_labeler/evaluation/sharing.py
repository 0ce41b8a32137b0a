"""Figures of docs/sharing.md: ``python -m ovam_labeler.evaluation.sharing --seed N`` (embedded model, held-out sprites).

Every corrected scene teaches a token of its own, once under a made-up name (classes of two people that share no word) and once
under the concept's own.  Then: how well :func:`ovam_labeler.sharing.similar.similarity` finds the other tokens of the same concept, what the plausibility check
refuses, and which form of a many-vector concept draws what its word draws.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from backends.contract import Attributor, Needs, TokenExample
from backends.diffusion.tiny.training.composer import compose
from backends.discovery import load_backend
from ovam_labeler.demo.scenes import Plan, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.sharing.plausibility import Reference, implausible, reference_of
from ovam_labeler.sharing.similar import similarity
from ovam_labeler.truth import build_truths

_SYLLABLES = ("ka", "ro", "mi", "tel", "vun", "sha", "dor", "pix", "lem", "gru")


def learned(scenes: SceneSet, backend: Any, *, own_names: bool) -> tuple[list[str], list[np.ndarray]]:
    """Concepts and embeddings, one for each corrected scene, learned under the concept's name or one that means nothing."""
    attributor, reader = backend.attributor, backend.reader()
    rng = np.random.default_rng(scenes.seed)
    concepts: list[str] = []
    embeddings: list[np.ndarray] = []
    for scene in (s for s in scenes.scenes if s.role == "correction"):
        made_up = "".join(rng.permutation(_SYLLABLES)[:3]) + str(len(concepts))
        name = scene.concept if own_names else made_up
        recipe = attributor.calibration.word_recipe if attributor.knows(name) else attributor.calibration.token_recipe
        (truth,) = build_truths(scene.truth.shape, [(name, scene.truth)], [name])
        capture = reader.capture(scene.image, Needs())
        example = TokenExample(capture, truth.mask.astype(np.float32), 1 - truth.ignore.astype(np.float32))
        fit = attributor.learn([example], recipe, label=name)
        concepts.append(scene.concept)
        embeddings.append(fit.embedding)
        print(f"\rlearned {len(concepts)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return concepts, embeddings


def judge_similarity(
    concepts: Sequence[str], embeddings: Sequence[np.ndarray], background: np.ndarray
) -> dict[str, Any]:
    """How tokens of the same concept rank among all."""
    found = similarity(embeddings, background)
    names = np.array(concepts)
    same = names[:, None] == names[None]
    rows, columns = np.triu_indices(len(names), 1)
    values, alike = found[rows, columns], same[rows, columns]
    np.fill_diagonal(found, -2.0)
    return {
        "tokens": len(names),
        "concepts": len(set(concepts)),
        "most alike is the same concept": float(same[np.arange(len(names)), found.argmax(1)].mean()),
        "by chance": float((same.sum(1) - 1).mean() / (len(names) - 1)),
        "same above another": float((values[alike][:, None] > values[~alike][None]).mean()),
        "same, mean": float(values[alike].mean()),
        "others, mean": float(values[~alike].mean()),
        "others, 95th percentile": float(np.quantile(values[~alike], 0.95)),
        "pairs at least 0.6": {"same": int((values[alike] >= 0.6).sum()), "others": int((values[~alike] >= 0.6).sum())},
    }


def judge_plausibility(reference: Reference, words: np.ndarray, embeddings: Sequence[np.ndarray]) -> dict[str, Any]:
    """Share refused of true tokens and of forgeries, with the range of the weakest row's share."""
    rng = np.random.default_rng(1)
    count, width = 300, words.shape[1]
    length = float(np.linalg.norm(words, axis=1).mean())
    noise = rng.standard_normal((count, width))
    noise *= length / np.linalg.norm(noise, axis=1, keepdims=True)

    def behind(rows: np.ndarray) -> list[np.ndarray]:
        return [np.stack([reference.background, row]) for row in rows]

    kinds: dict[str, list[np.ndarray]] = {
        "learned tokens": list(embeddings),
        "words of the model": behind(words),
        "random, both rows": [rng.standard_normal((2, width)) for _ in range(count)],
        "true background, random class of a word's length": behind(noise),
        "true background, uniform 0 to 1": behind(rng.random((count, width))),
        "learned, class row shuffled": [np.stack([e[0], rng.permutation(e[1])]) for e in embeddings],
        "each number with the words' mean and spread": behind(
            words.mean(0) + words.std(0) * rng.standard_normal((count, width))
        ),
        "learned, half-way to noise": [
            np.stack([e[0], (e[1] + n) / 2]) for e, n in zip(embeddings, noise, strict=False)
        ],
        "words' mean and covariance": behind(rng.multivariate_normal(words.mean(0), np.cov(words.T), count)),
    }
    found = {}
    for kind, tokens in kinds.items():
        shares = [float(reference.shares(t).min()) for t in tokens]
        refused = float(np.mean([implausible(t, reference) is not None for t in tokens]))
        found[kind] = {"count": len(tokens), "refused": refused, "share": [min(shares), max(shares)]}
    return {"cut": reference.cut, "kinds": found}


def judge_vectors(scenes: SceneSet, backend: Any) -> dict[str, Any]:
    """Words of several pieces: mean IoU of their own mask with that of one token, by rows and by the rows' mean."""
    attributor, reader = backend.attributor, backend.reader()
    words = [w for w in sorted(attributor.known_words or ()) if len(attributor.words(w)) >= 2][::7]
    overlaps: dict[str, list[float]] = {"rows": [], "mean": []}
    for scene in [s for s in scenes.scenes if s.role == "test"][:12]:
        capture = reader.capture(scene.image, Needs())
        for word in words:
            query = attributor.words(word)
            start = query[0].embeddings[:1]
            pieces = torch.stack([t.embeddings[1] for t in query])
            forms = [torch.cat([start, pieces]), torch.cat([start, pieces.mean(0, keepdim=True)])]
            with torch.no_grad():
                maps = attributor.maps(capture, [query, *(attributor.token(f.numpy()) for f in forms)]).numpy()
            own, *others = ((m - m.min()) / (np.ptp(m) + 1e-9) >= attributor.calibration.word_threshold for m in maps)
            for kind, mask in zip(overlaps, others, strict=True):
                overlaps[kind].append(float((own & mask).sum() / max(1, (own | mask).sum())))
    return {"words": len(words), **{f"IoU by {k}": float(np.mean(v)) for k, v in overlaps.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("test", "val"), default="test")
    arguments = parser.parse_args()
    plan = Plan(novel=12, known=6, corrections=3, tests=1)
    scenes = make_scenes(load_pack(arguments.split), arguments.seed, compose, plan)
    backend = load_backend("embedded")
    attributor: Attributor = backend.attributor
    concepts, embeddings = learned(scenes, backend, own_names=False)
    named = learned(scenes, backend, own_names=True)
    reference = reference_of(attributor)
    known = sorted(getattr(attributor, "known_words", None) or ())[::8]
    words = np.stack([attributor.noun(w) for w in known])
    report = {
        "seed": arguments.seed,
        "split": arguments.split,
        "similarity, made-up names": judge_similarity(concepts, embeddings, reference.background),
        "similarity, own names": judge_similarity(*named, reference.background),
        "plausibility": judge_plausibility(reference, words, embeddings),
        "several vectors": judge_vectors(scenes, backend),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
