"""Classes that learned the same thing: how alike two learned tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovam_labeler.errors import NotFoundError
from token_store.entities import TokenVersion

#: Tokens compared with all others at once: memory grows with this, not with the square of their number.
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tokens and how alike they are, -1..1; see :func:`similarity`."""

    similarity: float
    one: TokenVersion
    other: TokenVersion


def alike_pairs(
    versions: Sequence[TokenVersion], background: np.ndarray, *, name: str | None, least: float, limit: int
) -> list[Pair]:
    """Pairs at least ``least`` alike, the most alike first; with ``name`` only those of which one has that class name.

    Raises:
        NotFoundError: none of the versions is of that class.
    """
    if name is not None and all(v.class_name != name for v in versions):
        raise NotFoundError(f"{name!r} has no active token of this base model to compare with.")
    if len(versions) < 2:
        return []
    directions = Directions.of([v.embedding for v in versions], background)
    mine = np.array([name is None or v.class_name == name for v in versions])
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(versions), _BLOCK):
        block = np.flatnonzero(mine[start : start + _BLOCK]) + start
        values = directions.against(block)
        # Each pair once: to later tokens, and to earlier ones only where those do not ask for themselves.
        wanted = (np.arange(len(versions)) > block[:, None]) | ~mine
        at = np.argwhere(wanted & (values >= least))
        best = at[np.argsort(-values[at[:, 0], at[:, 1]], kind="stable")[:limit]]
        found += [(float(values[i, j]), int(block[i]), int(j)) for i, j in best]
    found.sort(key=lambda pair: -pair[0])
    return [Pair(value, versions[i], versions[j]) for value, i, j in found[:limit]]


@dataclass(frozen=True, slots=True)
class Directions:
    """Unit rows (n, E) of what :func:`similarity` compares; ``moved`` (n,) tells where there is a shift."""

    differences: np.ndarray
    shifts: np.ndarray
    moved: np.ndarray

    @classmethod
    def of(cls, embeddings: Sequence[np.ndarray], background: np.ndarray) -> Directions:
        shifts = np.stack([background - e[0] for e in embeddings])
        moved = np.linalg.norm(shifts, axis=1) > 1e-3 * np.linalg.norm(background)
        return cls(_unit(np.stack([e[1:].mean(0) - e[0] for e in embeddings])), _unit(shifts), moved)

    def against(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), n) similarities of some tokens to all."""
        whole = self.differences[rows] @ self.differences.T
        both = self.moved[rows][:, None] & self.moved[None]
        return np.asarray(np.where(both, (whole + self.shifts[rows] @ self.shifts.T) / 2, whole))


def similarity(embeddings: Sequence[np.ndarray], background: np.ndarray) -> np.ndarray:
    """How alike learned tokens are: (n, n) in -1..1, symmetric, 1 on the diagonal.

    The mean of two cosines, both relative to where learning starts: between the *differences* class less background, which
    are all that Eq. 5's maps of a token depend on; and between the *shifts* that learning added, which the starts, words
    that may have nothing to do with each other, do not blur.  A token optimization starts row 0 at the background
    and moves it opposite to the class's rows, so the shift is read off row 0 whatever word the class began at.  A token whose
    row 0 did not move (a textual inversion) has no shift: then the first cosine alone counts.

    Args:
        embeddings: (rows, E) each, of one embedding space.
        background: (E,) embedding of the start token.
    """
    return Directions.of(embeddings, background).against(np.arange(len(embeddings)))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
