"""Every form of region, both ways, and what is done to masks before they are written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovam_labeler.domain import Label, ProjectOptions, Proposal
from ovam_labeler.errors import BadMaskError
from ovam_labeler.masks.components import calmed, components, sizes
from ovam_labeler.masks.contours import filled, rings
from ovam_labeler.tools.contract import Control, ParsedConfig
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.predictions import MAX_REGIONS, form_mark, regions_of, write_prediction
from ovam_labeler.tools.label_studio.regions import (
    RegionOptions,
    entries,
    polygon,
    read_regions,
    region_mask,
    write_regions,
)
from ovam_labeler.tools.label_studio.rle import decode_mask

LABELLED = ("brushlabels", "bitmasklabels", "polygonlabels")
PAIRED = ("brush", "magicwand", "bitmask", "polygon")


def control(form: str) -> Control:
    return Control("draw", "image", form, (Label("disc"),), "labels" if form in PAIRED else "")


def ring(size: int = 120, outer: int = 50, inner: int = 20) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return (x**2 + y**2 <= outer**2) & (x**2 + y**2 > inner**2)


def two_discs(height: int = 120, width: int = 200) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((x - 50) ** 2 + (y - 60) ** 2 <= 30**2) | ((x - 150) ** 2 + (y - 60) ** 2 <= 20**2)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def written_and_read(mask: np.ndarray, form: str, options: RegionOptions | None = None) -> np.ndarray:
    """Through JSON, as over the wire."""
    wire: list[dict[str, Any]] = []
    for number, region in enumerate(write_regions(mask, form, options or RegionOptions())):
        wire += entries(region, control(form), "disc", f"r{number}", 0.5)
    regions, notes = read_regions(json.loads(json.dumps(wire)))
    assert notes == [] and {r.label for r in regions} <= {"disc"}
    union = np.zeros(mask.shape, dtype=bool)
    for region in regions:
        union |= region_mask(region, *mask.shape)
    return union


@pytest.mark.parametrize("form", [*LABELLED, *PAIRED])
@pytest.mark.parametrize("per", ["class", "object"])
def test_every_form_comes_back(form: str, per: Any) -> None:
    for mask in (ring(), two_discs()):
        assert iou(written_and_read(mask, form, RegionOptions(per)), mask) > 0.97


@pytest.mark.parametrize("form", PAIRED)
def test_pairs_are_two_entries_of_one_id_and_only_one_has_the_label(form: str) -> None:
    (region,) = write_regions(ring(), form, RegionOptions())
    drawn, twin = entries(region, control(form), "disc", "r", 0.5)
    assert (drawn["type"], drawn["from_name"], twin["type"], twin["from_name"]) == (form, "draw", "labels", "labels")
    assert drawn["id"] == twin["id"] == "r" and twin["value"] == {**drawn["value"], "labels": ["disc"]}
    assert "labels" not in drawn["value"] and form not in drawn["value"]


def test_one_region_a_class_or_one_an_object() -> None:
    for form in ("brushlabels", "bitmasklabels"):
        assert len(write_regions(two_discs(), form, RegionOptions("class"))) == 1
        parts = write_regions(two_discs(), form, RegionOptions("object"))
        assert [int(p.mask.sum()) for p in parts] == sorted((int(p.mask.sum()) for p in parts), reverse=True)
        assert len(parts) == 2 and not (parts[0].mask & parts[1].mask).any()
    assert len(write_regions(two_discs(), "polygonlabels", RegionOptions("class"))) == 2


def test_regions_of_a_label_are_capped_and_the_largest_stay() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    for n in range(9):
        mask[10 * n : 10 * n + 8, 10 : 20 + 2 * n] = True
    parts = write_regions(mask, "brushlabels", RegionOptions("object", most=3))
    assert [int(p.mask.sum()) for p in parts] == [8 * 26, 8 * 24, 8 * 22]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 60), st.integers(4, 60), st.floats(0.1, 0.9))
def test_outlines_of_any_mask_fill_to_exactly_that_mask(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    labels, count = components(mask)
    assert np.array_equal(labels > 0, mask)
    for number in range(1, min(count, 5) + 1):
        part = labels == number
        lines = rings(part)
        assert lines[0][1] - sum(area for _, area in lines[1:]) == part.sum()
        whole = filled(lines[0][0].astype(float), height, width)
        for hole, _ in lines[1:]:
            whole &= ~filled(hole.astype(float), height, width)
        assert np.array_equal(whole, part)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_objects_are_the_connected_ones(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    labels, count = components(mask)
    assert sorted(set(labels.ravel().tolist()) - {0}) == list(range(1, count + 1))
    for axis in (0, 1):  # neighbours that are both inside have one number
        a, b = (labels[1:], labels[:-1]) if axis == 0 else (labels[:, 1:], labels[:, :-1])
        both = (a > 0) & (b > 0)
        assert (a[both] == b[both]).all()
    assert count == flooded(mask) and sizes(labels, count).sum() == mask.sum()


def flooded(mask: np.ndarray) -> int:
    """Objects counted by walking."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        todo = [left.pop()]
        while todo:
            y, x = todo.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    todo.append(near)
    return count


@pytest.mark.parametrize("most", [8, 20, 80])
def test_polygons_keep_their_bound_and_their_holes(most: int) -> None:
    value = polygon.write(ring(400, 180, 90), most)
    assert value is not None and value["closed"] is True and len(value["points"]) <= most
    points = np.array(value["points"])
    assert points.min() >= 0 and points.max() <= 100
    read = polygon.read(value, 400, 400)
    assert iou(read, ring(400, 180, 90)) > {8: 0.5, 20: 0.8, 80: 0.98}[most]
    if most >= 20:
        assert not read[200, 200]


def test_ragged_polygons_keep_their_bound() -> None:
    mask = np.random.default_rng(3).random((90, 110)) < 0.62
    labels, count = components(mask)
    part = labels == int(np.argmax(sizes(labels, count))) + 1
    for most in (8, 30, 200):
        value = polygon.write(part, most)
        assert value is not None and 3 <= len(value["points"]) <= most


def test_polygons_are_filled_as_the_editor_fills_them() -> None:
    """A line that crosses itself encloses what it winds round, also twice."""
    star = [[50, 0], [80, 100], [0, 38], [100, 38], [20, 100]]
    read = polygon.read({"points": star}, 100, 100)
    assert read[60, 50] and read[45, 20] and not read[5, 5]
    square = polygon.read({"points": [[25, 25], [75, 25], [75, 75], [25, 75]]}, 40, 40)
    expected = np.zeros((40, 40), dtype=bool)
    expected[10:30, 10:30] = True
    assert np.array_equal(square, expected)


@pytest.mark.parametrize(
    "points", [[[0, 0]] * 10_001, [[0, 0], [1, "x"], [2, 2]], [[0, 0]], None, [[0, 0, 0]] * 4, [[0, float("inf")]] * 4]
)
def test_polygons_that_cannot_be_read(points: Any) -> None:
    with pytest.raises(BadMaskError):
        polygon.read({"points": points}, 10, 10)


def test_polygons_beyond_the_picture_are_cut_off_at_its_edge() -> None:
    everything = polygon.read({"points": [[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]]}, 30, 20)
    assert everything.all()
    assert not polygon.read({"points": [[-60, -60], [-50, -60], [-50, -50]]}, 30, 20).any()


def test_calm_masks_have_short_streams_and_are_the_same_masks() -> None:
    y, x = np.mgrid[:512, :512] - 256
    clean = x**2 + y**2 <= 150**2
    noise = np.random.default_rng(0).random(clean.shape)
    near = np.abs(np.sqrt(x**2 + y**2) - 150) < 3
    ragged = np.where(near, noise < 0.5, clean) ^ ((noise < 0.002) & ~near)
    calm = calmed(ragged)
    assert iou(calm, clean) > 0.98 > iou(ragged, clean)
    (before,), (after,) = (write_regions(m, "brushlabels", RegionOptions()) for m in (clean, ragged))
    assert len(after.value["rle"]) < 1.2 * len(before.value["rle"])


def test_fine_and_small_masks_are_left() -> None:
    line = np.zeros((1024, 1024), dtype=bool)
    line[500, 100:900] = True
    assert np.array_equal(calmed(line), line)
    dot = np.zeros((1024, 1024), dtype=bool)
    dot[5:8, 5:8] = True
    assert calmed(dot).any() and iou(calmed(dot), dot) > 0.5
    empty = np.zeros((4, 4), dtype=bool)
    assert not calmed(empty).any() and calmed(~empty).all()


def test_masks_at_the_edge_of_the_picture_stay_there() -> None:
    half = np.zeros((512, 512), dtype=bool)
    half[:, :256] = True
    assert np.array_equal(calmed(half), half)


def config_of(form: str) -> ParsedConfig:
    tags = {
        "brush": '<BrushLabels name="tag" toName="image"><Label value="disc"/></BrushLabels>',
        "polygon": '<PolygonLabels name="tag" toName="image"><Label value="disc"/></PolygonLabels>',
        "pair": '<Brush name="b" toName="image"/><Labels name="tag" toName="image"><Label value="disc"/></Labels>',
    }
    return parse_label_config(f'<View><Image name="image" value="$image"/>{tags[form]}</View>')


def proposed(mask: np.ndarray, score: float = 0.8) -> Proposal:
    soft = np.zeros((12, 20), np.float32)
    soft[:, :10], soft[:, 10:] = 1.0, 0.5
    return Proposal("disc", mask, soft, score, True, 1.0, "word")


def test_weaker_objects_have_lower_scores() -> None:
    mask = two_discs()
    made = write_prediction(
        [proposed(mask)], config_of("brush"), mask.shape, "v", options=ProjectOptions(regions="object")
    )
    assert [round(entry["score"], 2) for entry in made["result"]] == [0.8, 0.4] and made["score"] == 0.8


def test_pairs_are_remembered_by_their_label() -> None:
    made = write_prediction([proposed(two_discs())], config_of("pair"), (120, 200), "v")
    assert [entry["type"] for entry in made["result"]] == ["brush", "labels"]
    assert regions_of(made, config_of("pair")) == {made["result"][0]["id"]: "disc"}


def test_a_prediction_has_a_bounded_number_of_regions() -> None:
    mask = np.zeros((400, 400), dtype=bool)
    mask.reshape(20, 20, 20, 20)[:, 4:14, :, 4:14] = True
    options = ProjectOptions(regions="object", max_regions=200)
    labels = '<Label value="disc"/><Label value="bar"/>'
    config = parse_label_config(
        f'<View><Image name="i" value="$i"/><BrushLabels name="tag" toName="i">{labels}</BrushLabels></View>'
    )
    both = [proposed(mask), replace(proposed(mask), label="bar")]
    made = write_prediction(both, config, mask.shape, "v", options=options)
    assert len(made["result"]) == MAX_REGIONS and len(regions_of(made, config)) == MAX_REGIONS


def test_another_form_is_another_version() -> None:
    marks = [form_mark(config_of(form)) for form in ("brush", "polygon", "pair")]
    assert marks[0] == "" and len(set(marks)) == 3


def test_written_masks_are_0_and_255() -> None:
    (region,) = write_regions(ring(), "brushlabels", RegionOptions())
    assert np.array_equal(decode_mask(region.value["rle"], 120, 120), ring())
    assert set(np.unique(np.frombuffer(bytes(region.value["rle"]), np.uint8))) >= {255}
