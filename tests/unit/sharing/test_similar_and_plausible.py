"""What the number of ``tokens similar`` and the plausibility check say, on numbers made for it."""

from __future__ import annotations

import numpy as np
import pytest
from token_registry import Registry

from backends.contract import Attributor
from ovam_labeler.sharing.plausibility import Reference, background_of, implausible, reference_from
from ovam_labeler.sharing.reference_words import nouns
from ovam_labeler.sharing.similar import similarity

WIDTH = 64


def taught(rng: np.random.Generator, background: np.ndarray, shift: np.ndarray, noise: float = 0.3) -> np.ndarray:
    """A token as learning leaves it: a start of its own, row 0 moved against the class row."""
    start = rng.standard_normal(WIDTH)
    move = shift + noise * rng.standard_normal(WIDTH)
    return np.stack([background - move, start + move]).astype(np.float32)


def test_the_same_thing_under_another_name_is_most_alike() -> None:
    rng = np.random.default_rng(0)
    background = rng.standard_normal(WIDTH)
    shifts = [rng.standard_normal(WIDTH) for _ in range(6)]
    tokens = [taught(rng, background, s) for s in shifts for _ in range(2)]
    found = similarity(tokens, background)
    assert np.allclose(found, found.T) and np.allclose(np.diag(found), 1) and np.abs(found).max() <= 1 + 1e-6
    np.fill_diagonal(found, -2)
    assert [int(k) // 2 for k in found.argmax(1)] == [k // 2 for k in range(12)]


def test_tokens_without_a_shift_are_compared_by_their_direction_alone() -> None:
    rng = np.random.default_rng(1)
    background, a, b = rng.standard_normal((3, WIDTH))
    still = [np.stack([background, background + x]) for x in (a, b)]
    (_, value), _ = similarity(still, background)
    assert value == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)


def test_similar_command_finds_the_twin(registry: Registry) -> None:
    assert "No two" in registry.run("similar")[0]
    registry.add("cat", push=0.3)
    registry.add("car", push=0.3)
    registry.add("dog", push=0.3, embedding=registry.embedding("cat", 0.31))
    registry.add("bus", fingerprint={"space": "f" * 64, "model": "other"})
    first, *others = registry.json("similar", "--least", "-1")
    assert {t["class_name"] for t in first["tokens"]} == {"cat", "dog"} and first["similarity"] > 0.95
    assert len(others) == 2 and others[0]["similarity"] >= others[1]["similarity"]
    of_car = registry.json("similar", "car", "--least", "-1")
    assert [p["tokens"][0]["class_name"] for p in of_car] == ["car", "car"]
    text, note = registry.run("similar", "--least", "0.9")
    assert "cat" in text and "car" not in text and "other base models" in note
    assert "no active token" in registry.run("similar", "zebra", code=2)[1]


def test_similar_in_blocks_is_as_in_one(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovam_labeler.sharing import similar

    background = background_of(registry.attributor)
    versions = [registry.add(w, push=0.1 * k) for k, w in enumerate(("cat", "dog", "car", "bus", "tree"))]
    whole = similar.alike_pairs(versions, background, name=None, least=-1, limit=100)
    monkeypatch.setattr(similar, "_BLOCK", 2)
    parts = similar.alike_pairs(versions, background, name=None, least=-1, limit=100)
    keys = [[(p.one.class_name, p.other.class_name) for p in pairs] for pairs in (whole, parts)]
    assert keys[0] == keys[1] and len(keys[0]) == 10


def test_words_pass_and_noise_does_not(attributor: Attributor, reference: Reference, registry: Registry) -> None:
    assert reference.cut is not None and 0.4 < reference.cut < 0.8
    for word in ("cat", "hammer", "traffic light"):
        assert implausible(registry.embedding(word), reference) is None
        assert implausible(registry.embedding(word, 0.3), reference) is None
    rng = np.random.default_rng(0)
    refused = [implausible(rng.standard_normal((2, 256)), reference) for _ in range(50)]
    assert all(r is not None and "random numbers" in r for r in refused)


def test_where_words_look_like_noise_nothing_is_judged() -> None:
    rng = np.random.default_rng(0)
    blind = reference_from(rng.standard_normal((64, 32)), rng.standard_normal(32))
    assert blind.cut is None
    assert implausible(rng.standard_normal((2, 32)), blind) is None
    assert "length" in str(implausible(100 * rng.standard_normal((2, 32)), blind))


def test_reference_nouns_are_distinct_words() -> None:
    assert len(nouns()) == len(set(nouns())) > 200 and all(w.isalpha() for w in nouns())
