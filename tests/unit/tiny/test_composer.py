"""The scene composer: what it promises about sizes, masks and repeatability."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("cv2")

from backends.diffusion.tiny.training import composer
from backends.diffusion.tiny.training.composer import compose, hue_rotation


def disc(size: int, colour: tuple[int, int, int], alpha: int = 255) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    sprite = np.zeros((size, size, 4), np.uint8)
    sprite[rows**2 + columns**2 < (size / 2) ** 2] = (*colour, alpha)
    return sprite


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (300, 200)])
def test_shapes_types_and_ranges(size: tuple[int, int]) -> None:
    image, masks = compose([disc(64, (255, 0, 0)), disc(200, (0, 0, 255))], np.random.default_rng(0), size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert masks.shape == (2, *size) and masks.dtype == np.float32
    assert masks.min() >= 0 and masks.max() <= 1


def test_one_seed_one_picture() -> None:
    first, second = (compose([disc(64, (255, 0, 0))], np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_visible_parts_share_each_pixel() -> None:
    for seed in range(20):
        _, masks = compose([disc(64, (0, 255, 0))] * 3, np.random.default_rng(seed), scales=[0.6, 0.6, 0.6])
        assert masks.sum(0).max() <= 1 + 1e-5


def test_a_lone_object_has_the_area_of_its_scale() -> None:
    areas = [compose([disc(256, (9, 9, 9))], np.random.default_rng(s), scales=[0.5])[1].sum() for s in range(40)]
    # a disc of half the side, stretched up to 18 % one way and cut by the border in places
    assert 0.6 < np.mean(areas) / (np.pi * 32**2) < 1.15


def test_sprite_resolution_does_not_change_its_size_in_the_picture() -> None:
    small, large = (
        compose([disc(s, (200, 30, 30))], np.random.default_rng(3), scales=[0.4])[1].sum() for s in (48, 384)
    )
    assert large == pytest.approx(small, rel=0.05)


def test_no_sprites_is_a_bare_background() -> None:
    image, masks = compose([], np.random.default_rng(0), (40, 50))
    assert image.shape == (40, 50, 3) and masks.shape == (0, 40, 50)


def test_wrong_number_of_scales_is_refused() -> None:
    with pytest.raises(ValueError):
        compose([disc(32, (1, 2, 3))], np.random.default_rng(0), scales=[0.3, 0.3])


def test_hue_rotation_keeps_grey() -> None:
    assert np.allclose(hue_rotation(1.0) @ np.full(3, 100.0), 100.0, atol=1e-3)


def test_the_composer_itself_needs_neither_torch_nor_diffusers() -> None:
    code = (
        f"import importlib.util as u, sys; s = u.spec_from_file_location('c', {composer.__file__!r}); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); "
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
