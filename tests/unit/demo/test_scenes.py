"""Scenes are picked by seed alone, show what they claim, and keep their exact truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.scenes import Plan, make_scenes
from ovam_labeler.demo.sprites import load_pack

PLAN = Plan(novel=4, known=2, corrections=3, tests=4)


def pixels(scenes):
    return {s.name: s.image.tobytes() for s in scenes.scenes}


def test_same_seed_same_scenes_whatever_the_order_of_the_pack(pack):
    first = make_scenes(pack, 3, compose, PLAN)
    again = make_scenes(pack[::-1], 3, compose, PLAN)
    assert pixels(first) == pixels(again)
    assert pixels(first) != pixels(make_scenes(pack, 4, compose, PLAN))


def test_more_tests_change_no_other_scene(pack):
    few = pixels(make_scenes(pack, 0, compose, PLAN))
    many = pixels(make_scenes(pack, 0, compose, Plan(4, 2, 3, 6)))
    assert few.items() <= many.items()


def test_each_scene_keeps_the_rules_of_the_check(pack):
    scenes = make_scenes(pack, 1, compose, PLAN)
    assert [c.has_word for c in scenes.concepts] == [False] * 4 + [True] * 2
    names = {c.name for c in scenes.concepts}
    for concept in scenes.concepts:
        corrected, tests = scenes.of(concept.name, "correction"), scenes.of(concept.name, "test")
        assert (len(corrected), len(tests)) == (3, 4)
        assert corrected[0].same_style
        assert sum(not s.same_style for s in tests) == 2
        assert all((s.family == corrected[0].family) == s.same_style for s in tests)
    for scene in scenes.scenes:
        assert 2 <= len(scene.masks) <= 4
        assert 1 <= len(names & set(scene.masks)) <= 3
        assert scene.truth.dtype == bool
        assert scene.truth.shape == scene.image.shape[:2]
        total = sum(m.astype(int) for m in scene.masks.values())
        assert total.max() <= 1, "visible pixels belong to one object only"
        assert np.array_equal(scene.foreground, total > 0)


def test_offered_labels_hold_all_that_are_there(pack):
    scenes = make_scenes(pack, 2, compose, PLAN)
    for scene in scenes.scenes:
        offered = scenes.offered(scene, 5)
        assert len(offered) == len(set(offered)) == 5
        assert {c.name for c in scenes.concepts} & set(scene.masks) <= set(offered)
        assert offered == scenes.offered(scene, 5)


def test_saved_truth_is_exact(pack, tmp_path):
    scenes = make_scenes(pack, 5, compose, Plan(2, 2, 1, 2))
    scenes.save(tmp_path)
    index = json.loads((tmp_path / "scenes.json").read_text())
    assert index["seed"] == 5
    for entry, scene in zip(index["scenes"], scenes.scenes, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / entry["image"])), scene.image)
        for concept, file in entry["masks"].items():
            stored = np.asarray(Image.open(tmp_path / file))
            assert set(np.unique(stored)) <= {0, 255}
            assert np.array_equal(stored > 127, scene.masks[concept])


def test_too_small_a_pack_is_refused(pack):
    with pytest.raises(ValueError, match="without a word, 9 are asked for"):
        make_scenes(pack, 0, compose, Plan(novel=9, known=2))


def test_the_shipped_pack_feeds_the_default_plan_and_splits_do_not_mix():
    test, val = load_pack("test"), load_pack("val")
    assert not {c.name for c in test} & {c.name for c in val}
    for pack in (test, val):
        assert sum(not c.has_word and len(c.families()) >= 2 for c in pack) >= Plan().novel
        assert sum(c.has_word and len(c.families()) >= 2 for c in pack) >= Plan().known
    assert all(s.pixels.dtype == np.uint8 and s.pixels.shape[2] == 4 for c in test for s in c.sprites)
