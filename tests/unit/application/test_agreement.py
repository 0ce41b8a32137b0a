"""Where tokens put their highest values: on the human's mask, or on something else in the picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovam_labeler.agreement import FOUND, agreement, margin
from ovam_labeler.contradiction import contradicting


class Logits:
    """An attributor whose captures are pictures of numbered objects; a token is the list of their logits by number."""

    def logits(self, capture: Any, tokens: list[Any]) -> torch.Tensor:
        return torch.stack([torch.tensor(token, dtype=torch.float32)[capture] for token in tokens])


class Maps:
    """The same, by the method's maps in 0..1: a backend without logits."""

    def maps(self, _attributor: Any, capture: Any, tokens: list[Any]) -> torch.Tensor:
        return torch.sigmoid(Logits().logits(capture, tokens))


class Regions(Logits):
    """The same, and a region looks like how much of it is each object."""

    def regions(self, capture: Any, regions: np.ndarray) -> np.ndarray:
        shares = np.stack([(regions & (capture.numpy() == k)).sum((1, 2)) for k in range(3)], 1).astype(np.float32)
        return shares / np.maximum(np.linalg.norm(shares, axis=1, keepdims=True), 1e-9)


def picture(*places: tuple[int, int]) -> torch.Tensor:
    """32 x 32 of background (0) with objects 1, 2, ... in 10 x 10 boxes."""
    found = torch.zeros(32, 32, dtype=torch.long)
    for number, (y, x) in enumerate(places, 1):
        found[y : y + 10, x : x + 10] = number
    return found


def correction(capture: torch.Tensor, number: int) -> tuple[Any, np.ndarray, np.ndarray]:
    target = (capture == number).numpy().astype(np.float32)
    return capture, target, np.ones_like(target)


@pytest.mark.parametrize("attributor", [Logits(), SimpleNamespace()])
def test_a_mask_of_another_object_is_told_by_where_the_others_look(attributor: Any) -> None:
    first, second, wrong = picture((2, 2), (20, 20)), picture((12, 4), (2, 20)), picture((20, 2), (4, 15))
    pictures = [correction(first, 1), correction(second, 1), correction(wrong, 2)]
    tokens: list[Any] = [[-4.0, 2.0, -2.0], [-5.0, 1.0, -3.0], [-4.0, -2.0, 2.0]]
    found = agreement(attributor, Maps(), pictures, tokens)  # type: ignore[arg-type]
    kept = found.kept
    assert np.allclose(np.diag(kept), 1) and kept[0, 1] > 0.9 and kept[1, 0] > 0.9
    assert (kept[2, :2] == -1).all() and (kept[:2, 2] == -1).all()
    assert not found.alike.any() and not found.elsewhere.any(), "these do not compare regions"


def test_what_the_others_find_outside_a_mask_is_compared_with_what_they_marked() -> None:
    first, second, wrong = picture((2, 2), (20, 20)), picture((12, 4), (2, 20)), picture((20, 2), (4, 15))
    pictures = [correction(first, 1), correction(second, 1), correction(wrong, 2)]
    tokens: list[Any] = [[-4.0, 2.0, -2.0], [-5.0, 1.0, -3.0], [-4.0, -2.0, 2.0]]
    found = agreement(Regions(), Maps(), pictures, tokens)  # type: ignore[arg-type]
    assert found.alike[0, 1] == 1 and found.alike[2, 0] == 0
    # In the wrong picture their tokens find object 1, outside the mask; in each other's only object 2 is left outside.
    assert np.allclose(found.elsewhere[2, :2, :2], 1) and np.allclose(found.elsewhere[0, 1, :2], 0)
    assert np.allclose(found.elsewhere[0, 1, 2], 1)
    assert contradicting(found) == [2]


def test_what_is_found_outside_is_no_part_of_the_mask_and_of_the_size_that_is_said() -> None:
    seen: list[np.ndarray] = []

    class Seen(Regions):
        def regions(self, capture: Any, regions: np.ndarray) -> np.ndarray:
            seen.append(regions)
            return super().regions(capture, regions)

    rng = np.random.default_rng(0)
    capture, target, weight = correction(picture((2, 2), (20, 20)), 1)
    weight[:, :4] = 0
    values = rng.standard_normal((2, 32 * 32)).tolist()
    place = torch.arange(32 * 32).view(32, 32)
    agreement(Seen(), Maps(), [(place, target, weight)] * 2, values)  # type: ignore[arg-type]
    mask, *outside = seen[0]
    assert np.array_equal(mask, (target > 0) & (weight > 0)) and capture.shape == mask.shape
    for region in outside:
        assert region.sum() == round(FOUND * 32 * 32) and not region[(target > 0) | (weight == 0)].any()


def test_the_scale_of_a_token_does_not_matter() -> None:
    pictures = [correction(picture((2, 2), (20, 20)), 1), correction(picture((12, 4), (2, 20)), 1)]
    tokens = [[-4.0, 2.0, 1.0], [-1.0, 0.5, 0.0]]
    larger = [[10 * value for value in tokens[0]], tokens[1]]
    one, ten = (agreement(Logits(), Maps(), pictures, t) for t in (tokens, larger))  # type: ignore[arg-type]
    assert np.allclose(one.kept, ten.kept)


@given(st.integers(0, 10**6))
def test_always_between_minus_one_and_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = [
        (torch.arange(64).view(8, 8), (rng.random((8, 8)) > 0.7).astype(float), rng.integers(0, 2, (8, 8)))
        for _ in range(3)
    ]
    tokens = [(rng.standard_normal(64) * 10.0 ** rng.integers(-6, 6)).tolist() for _ in range(3)]
    found = agreement(Logits(), Maps(), pictures, tokens)  # type: ignore[arg-type]
    assert np.isfinite(found.kept).all() and (np.abs(found.kept) <= 1).all()


def test_nothing_known_is_no_margin() -> None:
    values, target = np.arange(4.0).reshape(2, 2), np.array([[1.0, 0], [0, 0]])
    assert margin(values, target, np.zeros((2, 2))) == 0.0
    assert margin(values, np.ones((2, 2)), np.ones((2, 2))) == 0.0
    assert margin(values, target, np.array([[1, 0], [0, 1]])) == -3.0
