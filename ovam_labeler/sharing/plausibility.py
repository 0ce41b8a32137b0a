"""Is this embedding anything like a class of this model?  A check of statistics, made for tokens of strangers.

Embeddings of class words lie near a small part of the space: most of what tells one word from another is in a few dozen
directions.  Learned tokens stay there, since learning starts at a word and moves in directions that the model reads; numbers
drawn at random, shuffled or from another model do not.  The check measures, for each row, which share of its length
(away from the words' mean) lies in the main directions of the model's words, and cuts half-way between words that were
held back and *decoys*: the same held-back words with their numbers shuffled.  The cut is thus measured in the very model.

What it cannot see: a token drawn to have the words' own statistics, or a true token under a wrong name.  Those are found by
evidence alone, which is why an imported token is ``unproven`` and not active.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.contract import Attributor, Progress
from ovam_labeler.sharing.reference_words import nouns

#: Words read, one in four of them held back; main directions kept.
WORDS = 256
DIRECTIONS = 32
#: Words and decoys must be this far apart, or the check does not judge.
_LEAST_GAP = 0.05
#: A row may be this many times shorter than the shortest word, or longer than the longest.
_LENGTHS = 3.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What class words look like in one model.

    Attributes:
        background: (E,) the start token's embedding.
        centre: (E,) mean of the words.
        directions: (k, E) orthonormal.
        cut: least share of a plausible row in 0..1; None where words and decoys cannot be told apart in this model.
        lengths: least and most length of a plausible row.
    """

    background: np.ndarray
    centre: np.ndarray
    directions: np.ndarray
    cut: float | None
    lengths: tuple[float, float]

    def shares(self, rows: np.ndarray) -> np.ndarray:
        """(n,) share in 0..1 of each (n, E) row's length that lies in the words' directions."""
        away = rows - self.centre
        return np.asarray(
            np.linalg.norm(away @ self.directions.T, axis=1) / np.maximum(np.linalg.norm(away, axis=1), 1e-12)
        )


def background_of(attributor: Attributor) -> np.ndarray:
    """(E,) embedding of the start token: row 0 of every query (see :class:`backends.contract.TokenSet`)."""
    return attributor.words("thing")[0].embeddings[0].detach().cpu().numpy()


def reference_of(attributor: Attributor, progress: Progress | None = None) -> Reference:
    """Reads the model's words: those it was trained with, else common nouns.  Seconds on a CPU; no UNet is needed."""
    known = sorted(getattr(attributor, "known_words", None) or nouns())
    order = np.random.default_rng(0).permutation(len(known))
    chosen = [known[i] for i in order[:WORDS]]
    rows = []
    for number, word in enumerate(chosen):
        rows.append(attributor.noun(word))
        if progress is not None:
            progress((number + 1) / len(chosen), "Reading the model's words")
    return reference_from(np.stack(rows), background_of(attributor))


def reference_from(words: np.ndarray, background: np.ndarray) -> Reference:
    """The reference of (m, E) embeddings of words and the start token's (E,)."""
    held, basis = words[::4], np.delete(words, np.s_[::4], axis=0)
    centre = basis.mean(0)
    count = max(1, min(DIRECTIONS, len(basis) // 4, words.shape[1] // 8))
    main = np.linalg.svd(basis - centre, full_matrices=False)[2][:count]
    start = background - centre
    start = start - (start @ main.T) @ main
    if np.linalg.norm(start) > 1e-6:
        main = np.concatenate([main, start[None] / np.linalg.norm(start)])
    lengths = np.linalg.norm(np.concatenate([words, background[None]]), axis=1)
    found = Reference(
        background, centre, main, None, (float(lengths.min()) / _LENGTHS, float(lengths.max()) * _LENGTHS)
    )
    decoys = np.stack([np.random.default_rng(k).permutation(row) for k, row in enumerate(held)])
    low, high = float(np.quantile(found.shares(held), 0.02)), float(np.quantile(found.shares(decoys), 0.98))
    cut = (low + high) / 2 if low - high >= _LEAST_GAP else None
    return Reference(found.background, centre, main, cut, found.lengths)


def implausible(embedding: np.ndarray, reference: Reference) -> str | None:
    """Why an (n, E) embedding is no class of this model, as the rest of a sentence; None where nothing speaks against it."""
    low, high = reference.lengths
    for number, length in enumerate(np.linalg.norm(embedding, axis=1)):
        if not low <= length <= high:
            return f"row {number} has length {length:.3g}, and embeddings of this model have {low:.3g} to {high:.3g}"
    if reference.cut is None:
        return None
    for number, share in enumerate(reference.shares(embedding)):
        if share < reference.cut:
            return (
                f"row {number} lies {100 * share:.0f} % in the directions of this model's words, and at least "
                f"{100 * reference.cut:.0f} % is needed: it looks like random numbers"
            )
    return None
