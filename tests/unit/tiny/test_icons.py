"""Icons as drawings: which are taken, and how one colour becomes several."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.diffusion.tiny.training import icons
from backends.diffusion.tiny.training.sources import (
    COLOURED,
    ICON_STYLES,
    ICONS_PACKAGE,
    ONE_COLOUR,
    RUN_VARIABLE,
    STYLES,
    package_folder,
)
from backends.diffusion.tiny.training.tint import paint, palette

BODY = '<path d="M0 0h16v16H0z"/>'


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, dict[str, str]]]:
    """Icons by set; what a test puts in is what the package holds once :func:`taken` asks."""
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    return {style.name: {} for style in ICON_STYLES}


def taken(sets: dict[str, dict[str, dict[str, str]]]) -> list[tuple[str, str, str | None]]:
    folder = package_folder(ICONS_PACKAGE)
    (folder / "json").mkdir(parents=True)
    for name, some in sets.items():
        (folder / f"json/{name}.json").write_text(json.dumps({"icons": some, "width": 16, "height": 16}))
    (folder / "collections.json").write_text(json.dumps({name: {"author": {"name": "A. Hand"}} for name in sets}))
    found = icons.drawings({"cat": "cat", "glassofmilk": "glass of milk", "mouse": "mouse"}, {"anvil", "cat"})
    assert all(extra.credit == "A. Hand" and "<svg" in str(extra.source) for _, extra in found)
    return [(style, extra.name, extra.label) for style, extra in found]


def put(some: dict[str, dict[str, str]], *names: str) -> None:
    some.update({name: {"body": BODY} for name in names})


def test_a_known_name_is_taken_whatever_variant_it_is(sets: dict[str, dict[str, dict[str, str]]]) -> None:
    put(sets["mdi"], "cat", "cat-outline", "cat-02-bold", "cats-fill", "glass-of-milk", "concatenate")
    put(sets["ph"], "cat-head")
    found = taken(sets)
    assert [(s, label) for s, _, label in found].count(("mdi", "cat")) == icons.MOST_OF_A_SET
    assert ("ph", "cat", "cat") in found and ("mdi", "glass of milk", "glass of milk") in found
    assert {label for _, _, label in found} == {"cat", "glass of milk"}


def test_a_held_out_concept_a_word_of_the_screen_and_a_moving_icon_are_not_taken(
    sets: dict[str, dict[str, dict[str, str]]],
) -> None:
    put(sets["mdi"], "cat-umbrella", "mouse", "mouse-line", "umbrella")
    sets["mdi"]["cat"] = {"body": '<path d="M0 0"><animate/></path>'}
    assert taken(sets) == []


def test_a_further_thing_needs_three_sets(sets: dict[str, dict[str, dict[str, str]]]) -> None:
    assert "anvil" in icons.FURTHER
    for name in ("mdi", "ph"):
        put(sets[name], "anvil", "zither")
    put(sets["tabler"], "zither")
    assert taken(sets) == []


def test_three_sets_make_a_concept(sets: dict[str, dict[str, dict[str, str]]]) -> None:
    for name in ("mdi", "ph", "tabler"):
        put(sets[name], "anvil")
    assert [label for _, name, label in taken(sets) if name == "anvil"] == [None] * 3


def test_the_sets_of_the_evaluation_are_no_icon_sets() -> None:
    names = [style.name for style in ICON_STYLES]
    assert len(names) == len(set(names)) == len(COLOURED.split()) + len(ONE_COLOUR.split())
    drawn = {style.package.rsplit("@", 1)[0].rpartition("/")[2] for style in STYLES}
    assert not drawn & set(names) and not any("emoji" in name for name in names)
    assert not {style.licence for style in ICON_STYLES} - {
        "MIT",
        "ISC",
        "Apache-2.0",
        "OFL-1.1",
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
    }


def ring(thick: int) -> np.ndarray:
    icon = np.zeros((128, 128, 4), np.uint8)
    alpha = np.zeros((128, 128), np.uint8)
    cv2.circle(alpha, (64, 64), 50, 255, thick)
    icon[..., 3] = alpha
    return icon


COLOURS = np.array([[200, 40, 40], [40, 200, 40], [240, 240, 240], [20, 20, 20]], np.float32)


def test_a_line_drawing_is_filled_with_the_main_colour() -> None:
    painted = paint(ring(6), COLOURS, np.random.default_rng(0))
    assert painted is not None and painted.dtype == np.uint8
    assert painted[64, 64].tolist() == [200, 40, 40, 255]
    assert painted[64, 14, :3].sum() < 60 and painted[0, 0, 3] == 0  # a dark line, nothing outside


def test_a_filled_icon_has_the_main_colour_and_its_hole_another() -> None:
    painted = paint(ring(48), COLOURS, np.random.default_rng(1))
    assert painted is not None
    assert painted[64, 30].tolist() == [200, 40, 40, 255]
    assert painted[64, 64, 3] == 255 and painted[64, 64, :3].tolist() != [200, 40, 40]


def test_open_lines_are_no_object() -> None:
    icon = np.zeros((128, 128, 4), np.uint8)
    cv2.line(icon, (10, 10), (118, 100), (0, 0, 0, 255), 5)
    assert paint(icon, COLOURS, np.random.default_rng(0)) is None


def test_the_palette_begins_with_the_most_frequent_colour() -> None:
    drawing = np.zeros((64, 64, 4), np.uint8)
    drawing[8:56, 8:56] = (10, 20, 200, 255)
    drawing[8:16, 8:56] = (250, 250, 0, 255)
    found = palette(drawing, 2)
    assert np.abs(found - np.array([[10, 20, 200], [250, 250, 0]])).max() < 2
