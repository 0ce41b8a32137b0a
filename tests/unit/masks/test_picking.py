from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovam_labeler.masks import picking
from ovam_labeler.masks.picking import Box, Point, pick

SIZE = (120, 200)


def disc(x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


LEFT, RIGHT = disc(50, 60, 30), disc(150, 60, 20)


def soft_of(*bumps: tuple[int, int, float, float]) -> np.ndarray:
    """A map of (x, y, width, height of the bump), as coarse as a model's: one cell in ten pixels."""
    rows, columns = np.mgrid[5 : SIZE[0] : 10, 5 : SIZE[1] : 10]
    total = np.zeros(rows.shape)
    for x, y, wide, high in bumps:
        total += high * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * wide**2))
    return total.astype(np.float32)


SOFT = soft_of((50, 60, 20, 1.0), (150, 60, 14, 0.7))


def at(x: float, y: float, positive: bool = True) -> Point:
    return Point(x / SIZE[1], y / SIZE[0], positive)


def box(left: float, top: float, right: float, bottom: float, positive: bool = True) -> Box:
    shares = [(x / SIZE[1], y / SIZE[0]) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    return Box(tuple(shares), positive)


def test_a_point_picks_the_object_it_lies_in() -> None:
    assert np.array_equal(pick(LEFT | RIGHT, SOFT, [at(150, 60)], []), RIGHT)
    assert np.array_equal(pick(LEFT | RIGHT, SOFT, [at(150, 60), at(45, 50)], []), LEFT | RIGHT)


def test_a_box_clips() -> None:
    clipped = pick(LEFT | RIGHT, SOFT, [], [box(0, 0, 50, 120)])
    assert np.array_equal(clipped, LEFT & (np.arange(SIZE[1]) < 50))
    both = pick(LEFT | RIGHT, SOFT, [at(150, 60)], [box(100, 0, 200, 120)])
    assert np.array_equal(both, RIGHT)
    assert not pick(LEFT | RIGHT, SOFT, [], [box(100, 0, 200, 120), box(100, 0, 200, 120, False)]).any()


def test_an_object_below_the_threshold_is_found_by_point_and_by_box() -> None:
    nothing_there = LEFT
    for found in (
        pick(nothing_there, SOFT, [at(150, 60)], []),
        pick(nothing_there, SOFT, [], [box(110, 20, 190, 100)]),
    ):
        assert found[60, 150] and not (found & LEFT).any()
        assert (found & RIGHT).sum() > 0.7 * found.sum() > 100


def test_where_the_map_has_nothing_nothing_is_picked() -> None:
    flat = np.ones((12, 20), np.float32)
    assert not pick(LEFT & False, flat, [at(100, 60)], []).any()
    assert not pick(LEFT, SOFT, [at(199, 0)], []).any()


def test_a_negative_point_takes_its_object_away() -> None:
    assert np.array_equal(pick(LEFT | RIGHT, SOFT, [at(50, 60, False)], []), RIGHT)
    assert np.array_equal(pick(LEFT | RIGHT, SOFT, [at(100, 10, False)], []), LEFT | RIGHT)


def test_a_negative_point_in_the_same_object_parts_it_along_the_map() -> None:
    bridge = np.zeros(SIZE, dtype=bool)
    bridge[55:65, 50:150] = True
    joined = LEFT | RIGHT | bridge
    soft = soft_of((50, 60, 20, 1.0), (150, 60, 14, 0.6))
    kept = pick(joined, soft, [at(50, 60), at(150, 60, False)], [])
    assert kept[60, 50] and not kept[60, 150] and not (kept & RIGHT).any()


def test_a_negative_point_on_the_stronger_side_parts_by_distance() -> None:
    bridge = np.zeros(SIZE, dtype=bool)
    bridge[55:65, 50:150] = True
    joined = LEFT | RIGHT | bridge
    kept = pick(joined, SOFT, [at(150, 60), at(50, 60, False)], [])
    assert kept[60, 150] and not kept[60, 50] and np.array_equal(kept, joined & (np.arange(SIZE[1]) > 100))


def test_large_pictures_are_picked_on_fewer_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picking, "WORK_PIXELS", 2000)
    found = pick(LEFT | RIGHT, SOFT, [at(150, 60)], [])
    assert found.shape == SIZE and (found & RIGHT).sum() / (found | RIGHT).sum() > 0.75


share = st.floats(-2, 3, allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.builds(Point, share, share, st.booleans()), max_size=4),
    st.lists(
        st.builds(Box, st.tuples(*[st.tuples(share, share)] * 4), st.booleans()),
        max_size=2,
    ),
)
def test_any_clicks_are_answered(seed: int, points: list[Point], boxes: list[Box]) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((17, 23)) < rng.random()
    found = pick(mask, rng.random((5, 7)).astype(np.float32), points, boxes)
    assert found.shape == mask.shape and found.dtype == bool
    for point in points:  # what a negative point lies on is never in the answer
        y, x = min(max(int(point.y * 17), 0), 16), min(max(int(point.x * 23), 0), 22)
        same = any(
            p.positive and (min(max(int(p.y * 17), 0), 16), min(max(int(p.x * 23), 0), 22)) == (y, x) for p in points
        )
        assert point.positive or same or not found[y, x]
