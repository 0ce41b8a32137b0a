"""Proposals: presence, thresholds, overlap, words and tokens, refiners; and the model version's properties."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_model import COLOURS, ColourModel, box, scene

from backends import discovery
from backends.discovery import Found
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions
from ovam_labeler.errors import BadRequestError, ModelError
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.map_memory import ClassMap, MapMemory
from ovam_labeler.model_version import base_name, model_identity
from ovam_labeler.options import project_options
from ovam_labeler.settings import Settings
from token_store.entities import NewTokenVersion, Scope, TokenVersion

SCOPE, OTHER = Scope("default", "1"), Scope("default", "2")
OPTIONS = ProjectOptions()
RED, BLUE = box(8, 8, 32, 32), box(8, 56, 32, 32)


def loaded(pixels: np.ndarray) -> LoadedImage:
    return load_image(encode_png(pixels))


def red_and_blue() -> LoadedImage:
    return loaded(scene((COLOURS["red"], (8, 8, 32, 32)), (COLOURS["blue"], (8, 56, 32, 32))))


def labels(*names: str) -> list[Label]:
    return [Label(name) for name in names]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def add_token(
    app: OvamApplication, name: str, embedding: np.ndarray, scope: Scope = SCOPE, space: str = "space-1"
) -> TokenVersion:
    new = NewTokenVersion({"space": space, "model": "m", "settings": {}}, embedding.astype(np.float32), {}, {})
    return app.store.add_version(scope, name, new, aliases=("active",))


def token_of(model: ColourModel, word: str) -> np.ndarray:
    return np.stack([np.zeros(4, np.float32), model.attributor.noun(word)])


def test_present_classes_are_masked_and_absent_ones_empty(app: OvamApplication) -> None:
    found = app.proposer.propose(red_and_blue(), labels("red", "green", "blue", "defect_07"), SCOPE, OPTIONS)
    assert [p.label for p in found] == ["red", "green", "blue", "defect_07"]
    assert iou(found[0].mask, RED) > 0.8
    assert iou(found[2].mask, BLUE) > 0.8
    for absent in (found[1], found[3]):
        assert not absent.present and not absent.mask.any()
        assert absent.mask.shape == (64, 96)
    for proposal in found:
        assert 0 <= proposal.score <= 1 and 0 <= proposal.presence <= 1
        assert proposal.soft.shape == (16, 24) and proposal.soft.dtype == np.float32
        assert proposal.source == "word" and proposal.token_version is None


def test_without_presence_everything_is_drawn(app: OvamApplication) -> None:
    found = app.proposer.propose(red_and_blue(), labels("red", "green"), SCOPE, replace(OPTIONS, presence=False))
    assert all(p.present and p.presence == 1.0 and p.mask.any() for p in found)


def test_a_picture_read_in_parts_too_has_one_mask_of_its_own_size(app: OvamApplication, model: ColourModel) -> None:
    place = (200, 420, 12, 12)
    image = loaded(scene((COLOURS["red"], place), size=(480, 720)))
    truth = np.zeros((480, 720), dtype=bool)
    truth[200:212, 420:432] = True
    asked = replace(OPTIONS, tiles=4, presence=False)
    app.proposer.propose(image, labels("red"), SCOPE, replace(asked, tiles=1))
    before = model.reader.unet_passes
    (parts,) = app.proposer.propose(image, labels("red"), SCOPE, asked)
    assert model.reader.unet_passes - before == 12 and parts.mask.shape == (480, 720)
    assert iou(parts.mask, truth) > 0.75
    app.proposer.propose(image, labels("red"), SCOPE, asked)
    assert model.reader.unet_passes - before == 12  # every part's capture is cached
    versions = {app.proposer.model_version(labels("red"), SCOPE, replace(OPTIONS, tiles=n)) for n in (1, 2)}
    assert len(versions) == 2


def test_overlap_policies(app: OvamApplication, model: ColourModel) -> None:
    add_token(app, "rouge", token_of(model, "red"))
    both = labels("red", "rouge")
    exclusive = app.proposer.propose(red_and_blue(), both, SCOPE, replace(OPTIONS, presence=False))
    assert not (exclusive[0].mask & exclusive[1].mask).any()
    free = app.proposer.propose(red_and_blue(), both, SCOPE, replace(OPTIONS, presence=False, overlap="independent"))
    assert iou(free[0].mask, free[1].mask) > 0.95
    assert [p.source for p in free] == ["word", "token"]


def test_scope_token_wins_over_global_and_word(app: OvamApplication, model: ColourModel) -> None:
    add_token(app, "thing", token_of(model, "blue"), Scope.everywhere())
    add_token(app, "thing", token_of(model, "red"), SCOPE)
    (here,) = app.proposer.propose(red_and_blue(), labels("thing"), SCOPE, OPTIONS)
    (there,) = app.proposer.propose(red_and_blue(), labels("thing"), OTHER, OPTIONS)
    assert iou(here.mask, RED) > 0.8 and here.token_version == 1
    assert iou(there.mask, BLUE) > 0.8 and there.source == "token"


def test_token_of_another_space_is_refused_with_a_warning(
    app: OvamApplication, model: ColourModel, caplog: pytest.LogCaptureFixture
) -> None:
    add_token(app, "red", token_of(model, "blue"), space="space-9")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            (found,) = app.proposer.propose(red_and_blue(), labels("red"), SCOPE, OPTIONS)
    assert found.source == "word" and iou(found.mask, RED) > 0.8
    assert sum("another embedding space" in r.message for r in caplog.records) == 1


def test_words_off_leaves_unlearned_labels_out(app: OvamApplication, model: ColourModel) -> None:
    add_token(app, "rouge", token_of(model, "red"))
    found = app.proposer.propose(red_and_blue(), labels("blue", "rouge"), SCOPE, replace(OPTIONS, words=False))
    assert [p.present for p in found] == [False, True]
    assert [p.label for p in found] == ["blue", "rouge"]


def test_label_prompt_is_what_is_asked(app: OvamApplication) -> None:
    (found,) = app.proposer.propose(red_and_blue(), [Label("etwas", "blue")], SCOPE, OPTIONS)
    assert iou(found.mask, BLUE) > 0.8


def test_threshold_option(app: OvamApplication) -> None:
    areas = [
        app.proposer.propose(red_and_blue(), labels("red"), SCOPE, replace(OPTIONS, threshold=t))[0].mask.sum()
        for t in (0.05, 0.95)
    ]
    assert areas[0] > areas[1] > 0


def test_no_labels_no_read_and_repeats_are_answered_alike(app: OvamApplication, model: ColourModel) -> None:
    assert app.proposer.propose(red_and_blue(), [], SCOPE, OPTIONS) == []
    assert model.reader.unet_passes == 0
    found = app.proposer.propose(red_and_blue(), labels("red", "red"), SCOPE, OPTIONS)
    assert len(found) == 2 and (found[0].mask == found[1].mask).all()


@pytest.mark.parametrize("bad", ["", "   ", "x" * 300])
def test_unusable_labels_are_one_sentence(app: OvamApplication, bad: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        app.proposer.propose(red_and_blue(), labels(bad), SCOPE, OPTIONS)
    assert str(caught.value).endswith(".")


def test_accents_and_other_alphabets_are_labels(app: OvamApplication) -> None:
    found = app.proposer.propose(red_and_blue(), labels("Fêlure", "裂缝", "a/b", "defect_07"), SCOPE, OPTIONS)
    assert [p.label for p in found] == ["Fêlure", "裂缝", "a/b", "defect_07"]


def test_odd_sizes(app: OvamApplication) -> None:
    for size in ((3, 200), (151, 7), (2, 2)):
        pixels = np.full((*size, 3), 128, np.uint8)
        (found,) = app.proposer.propose(loaded(pixels), labels("red"), SCOPE, replace(OPTIONS, presence=False))
        assert found.mask.shape == size


def test_large_image_has_a_full_size_mask(app: OvamApplication) -> None:
    pixels = scene((COLOURS["red"], (400, 600, 800, 1200)), size=(1600, 3000))
    (found,) = app.proposer.propose(loaded(pixels), labels("red"), SCOPE, OPTIONS)
    assert found.mask.shape == (1600, 3000)
    assert iou(found.mask, box(400, 600, 800, 1200, (1600, 3000))) > 0.95


def test_unknown_method_and_refiner_name_what_is_there(app: OvamApplication) -> None:
    with pytest.raises(BadRequestError, match="method 'magic'.*ovam"):
        app.proposer.propose(red_and_blue(), labels("red"), SCOPE, replace(OPTIONS, method="magic"))
    with pytest.raises(BadRequestError, match="refiner 'magic'.*none"):
        app.proposer.propose(red_and_blue(), labels("red"), SCOPE, replace(OPTIONS, refiner="magic"))


class Cross:
    """A refiner that keeps the left half, or misbehaves."""

    name = "cross"
    result: object = None

    def refine(self, image: np.ndarray, soft: np.ndarray) -> np.ndarray:
        assert image.shape[:2] == soft.shape and soft.min() >= 0 and soft.max() <= 1
        if self.result is not None:
            return self.result  # type: ignore[return-value]
        kept = soft.copy()
        kept[:, 24:] = 0
        return kept


@pytest.fixture
def refiner(monkeypatch: pytest.MonkeyPatch) -> Cross:
    made = Cross()
    plugins = {
        "cross": Found("cross", "test", made, None),
        "broken": Found("broken", "test", None, "ImportError: no x"),
    }
    monkeypatch.setattr(discovery, "refiners", lambda: plugins)
    return made


def test_refiner_shapes_the_mask_and_a_bad_one_is_left_out(app: OvamApplication, refiner: Cross) -> None:
    options = replace(OPTIONS, refiner="cross")
    (found,) = app.proposer.propose(red_and_blue(), labels("red"), SCOPE, options)
    assert found.mask[:, :24].any() and not found.mask[:, 24:].any()
    for bad in (np.zeros((1, 1)), np.full((64, 96), np.nan)):
        refiner.result = bad
        (found,) = app.proposer.propose(red_and_blue(), labels("red"), SCOPE, options)
        assert iou(found.mask, RED) > 0.8
    with pytest.raises(ModelError, match="no x"):
        app.proposer.propose(red_and_blue(), labels("red"), SCOPE, replace(OPTIONS, refiner="broken"))


# -- model version ----------------------------------------------------------------------------------------------------


def test_version_needs_no_model_and_is_equal_across_processes(settings: Settings) -> None:
    models = ColourModel(), ColourModel()
    found = []
    for model in models:
        with build_application(settings, loader=model.load) as app:
            found.append(app.proposer.model_version(labels("red", "blue"), SCOPE, OPTIONS))
    assert found[0] == found[1]
    assert found[0].startswith("ovam-embedded-")
    assert [model.loads for model in models] == [0, 0]


def test_version_changes_with_what_shapes_masks_and_with_nothing_else(app: OvamApplication, model: ColourModel) -> None:
    asked = labels("red", "thing")

    def version(scope: Scope = SCOPE, options: ProjectOptions = OPTIONS, names: list[Label] = asked) -> str:
        return app.proposer.model_version(names, scope, options)

    base = version()
    assert version(names=labels("thing", "red")) == base
    assert version(options=replace(OPTIONS, learning=False, exhaustive=False)) == base
    changed = {
        version(options=replace(OPTIONS, **change))
        for change in (
            {"method": "daam"},
            {"refiner": "guided-filter"},
            {"overlap": "independent"},
            {"threshold": 0.3},
            {"presence": False},
            {"words": False},
        )
    }
    changed |= {version(names=labels("red")), version(names=[Label("red"), Label("thing", "a thing")])}
    assert len(changed | {base}) == 9

    before_other = version(OTHER)
    add_token(app, "thing", token_of(model, "red"))
    learned = version()
    assert learned != base
    assert version(OTHER) == before_other, "another project's token leaves this string alone"
    add_token(app, "unrelated", token_of(model, "red"))
    assert version() == learned, "a token of no label of the config changes nothing"
    add_token(app, "thing", token_of(model, "blue"))
    second = version()
    assert second not in (base, learned)
    app.store.set_alias(SCOPE, "thing", "active", 1, who="t", why="rollback")
    assert version() == learned, "going back gives the old string"
    app.store.set_alias(SCOPE, "thing", "active", None, who="t", why="word is better")
    assert version() == base
    add_token(app, "thing", token_of(model, "blue"), Scope.everywhere())
    assert version() != base and version(OTHER) != before_other


def test_model_identity_follows_content_not_place(tmp_path: Path) -> None:
    ids = []
    for name, byte in (("a", b"\1"), ("b", b"\1"), ("c", b"\2")):
        folder = tmp_path / name
        (folder / "unet").mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
        (folder / "unet" / "model.safetensors").write_bytes(byte * 200_000)
        ids.append(model_identity(str(folder)))
    assert ids[0] == ids[1] != ids[2]
    assert model_identity("owner/name") == "name:owner/name"
    assert base_name("stable-diffusion-v1-5/stable-diffusion-v1-5") == "stable-diffusion-v1-5"
    assert base_name("/models/My Model/") == "my-model"


def test_options_override_settings_and_name_what_is_wrong(settings: Settings) -> None:
    stored = {"overlap": "independent", "threshold": 0.25, "learning": False, "later": 1, "exhaustive": None}
    made = project_options(settings, stored)
    default = replace(OPTIONS, refiner=settings.refiner)
    assert made == replace(default, overlap="independent", threshold=0.25, learning=False)
    assert project_options(settings) == default
    both = project_options(settings, {"push": 3, "policy": "auto", "extra_params": {"push": 4, "classes": ["a", "a"]}})
    assert (both.push, both.policy, both.classes) == (4, "auto", ("a",))
    assert both.wants("a") and not both.wants("b") and default.wants("b")
    for bad in (
        {"classes": []},
        {"classes": "a"},
        {"classes": [1]},
        {"overlap": "both"},
        {"threshold": 2},
        {"threshold": True},
        {"words": "yes"},
        {"method": ""},
    ):
        with pytest.raises(BadRequestError, match=next(iter(bad))):
            project_options(settings, bad)


def test_only_the_maps_of_a_changed_class_are_made_again(
    app: OvamApplication, model: ColourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token lands: the other classes' maps are kept, though presence and overlap are judged anew among all."""
    asked: list[int] = []
    maps = model.attributor.maps
    monkeypatch.setattr(model.attributor, "maps", lambda c, q: asked.append(len(q)) or maps(c, q))
    image, names = red_and_blue(), labels("red", "green", "blue", "thing")
    first = app.proposer.propose(image, names, SCOPE, OPTIONS)
    again = app.proposer.propose(image, names, SCOPE, OPTIONS)
    assert asked == [4] and all(np.array_equal(a.mask, b.mask) for a, b in zip(first, again, strict=True))
    add_token(app, "thing", token_of(model, "blue"))
    found = app.proposer.propose(image, names, SCOPE, OPTIONS)
    assert asked == [4, 1]
    assert np.array_equal(found[0].mask, first[0].mask) and found[3].source == "token"
    monkeypatch.setattr(app.proposer, "_memory", MapMemory())
    fresh = app.proposer.propose(image, names, SCOPE, OPTIONS)
    assert asked == [4, 1, 4], "nothing kept: all are made"
    assert all(np.array_equal(a.mask, b.mask) and a.score == b.score for a, b in zip(found, fresh, strict=True))
    app.proposer.propose(image, names, SCOPE, OPTIONS, prompt="a picture")
    app.proposer.propose(red_and_blue(), names, SCOPE, replace(OPTIONS, overlap="independent", threshold=0.3))
    assert asked == [4, 1, 4, 4], "another prompt is another reading; options of the mask are none of the map"


def test_the_map_memory_is_bounded() -> None:
    one = ClassMap(torch.zeros(8, 8), torch.zeros(8, 8))
    memory = MapMemory(most=3 * one.bytes)
    made: list[int] = []

    def make(places: list[int]) -> list[ClassMap]:
        made.extend(places)
        return [one] * len(places)

    memory.get(["a", "b", "c"], make)
    memory.get(["a", "d"], make)  # b is the least recently used
    assert made == [0, 1, 2, 1]
    memory.get(["a", "c", "d"], make)
    assert made == [0, 1, 2, 1]
    memory.get(["b"], make)
    assert made == [0, 1, 2, 1, 0]
