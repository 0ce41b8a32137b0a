from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovam_labeler.domain import LoadedImage
from ovam_labeler.tiling import OVERLAP, SMALLEST, Part, cut, parts_of, together


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 8))
def test_parts_cover_the_picture_and_overlap(height: int, width: int, along: int) -> None:
    parts = parts_of(height, width, along)
    if along < 2 or max(height, width) / (1 + (along - 1) * (1 - OVERLAP)) < SMALLEST:
        assert parts == []
        return
    for length, ends in ((height, [(p.top, p.bottom) for p in parts]), (width, [(p.left, p.right) for p in parts])):
        spans = sorted(set(ends))
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(second[0] < first[1] for first, second in zip(spans, spans[1:], strict=False))
        assert max(b - a for a, b in spans) - min(b - a for a, b in spans) <= 1
    longer = {(p.top, p.bottom) for p in parts} if height > width else {(p.left, p.right) for p in parts}
    assert len(longer) == along


def test_a_part_is_a_picture_of_its_own() -> None:
    image = LoadedImage(np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3), "a" * 64)
    one, other = cut(image, Part(0, 10, 0, 20)), cut(image, Part(0, 10, 5, 25))
    assert np.array_equal(other.pixels, image.pixels[0:10, 5:25])
    assert len({one.sha256, other.sha256, image.sha256}) == 3 and one.sha256 == cut(image, Part(0, 10, 0, 20)).sha256


def cut_maps(full: torch.Tensor, parts: list[Part], cells: int) -> list[torch.Tensor]:
    return [
        torch.nn.functional.interpolate(
            full[None, :, p.top : p.bottom, p.left : p.right], size=(cells, cells), mode="area"
        )[0]
        for p in parts
    ]


def test_maps_of_parts_make_the_map_of_the_whole() -> None:
    y, x = np.mgrid[:512, :768].astype(np.float32)
    full = torch.from_numpy(np.stack([x / 768, np.sin(y / 90) + 1]))
    parts = parts_of(512, 768, 4)
    made = together(512, 768, parts, cut_maps(full, parts, 32), [[1.0, 1.0]] * len(parts))
    expected = torch.nn.functional.interpolate(full[None], size=made.shape[-2:], mode="area")[0]
    assert made.shape[-1] > 90 and float((made - expected).abs().max()) < 0.05


def test_a_part_counts_as_probable_as_the_class_is_there() -> None:
    parts = parts_of(400, 400, 2)
    maps = [torch.ones(1, 16, 16)] * 4
    made = together(400, 400, parts, maps, [[1.0], [0.0], [0.0], [0.5]])
    assert made[0, 0, 0] == pytest.approx(1.0) and made[0, 0, -1] == 0 and made[0, -1, -1] == pytest.approx(0.5)
    middle = made[0, made.shape[1] // 2, made.shape[2] // 2]
    assert 0.2 < float(middle) < 0.6
