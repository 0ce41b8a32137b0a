"""Learning: from one mask, from several, from negatives; evidence decides between token and word; jobs run twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from colour_model import COLOURS, ColourModel, box, scene

from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions, Truth
from ovam_labeler.errors import BadImageError, BadMaskError, BadRequestError, FetchError, OvamError
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.option_changes import change_options
from ovam_labeler.promotion import Evidence, Moves, Verdict, judge
from ovam_labeler.settings import Settings
from ovam_labeler.truth import build_truths
from token_store.entities import Correction, NewCorrection, NewTokenVersion, Scope, StateChange

SCOPE = Scope("default", "1")
YELLOW = (210, 200, 20)
TEAL = (20, 190, 180)
OPTIONS = ProjectOptions()


class Tool:
    """A labeling tool in memory: images and truths by annotation id."""

    def __init__(self) -> None:
        self.images: dict[str, LoadedImage] = {}
        self.truths: dict[str, list[Truth]] = {}
        self.error: OvamError | None = None
        self.fetched = 0

    def image_of(self, correction: Correction) -> tuple[LoadedImage, str]:
        self.fetched += 1
        if self.error is not None:
            raise self.error
        return self.images[correction.image_ref], str(correction.payload.get("prompt", ""))

    def truths_of(self, correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
        return self.truths[correction.annotation_id], ["Region 'r1' was skipped."]


@pytest.fixture
def tool(app: OvamApplication) -> Tool:
    made = Tool()
    app.decoders["tool"] = made  # type: ignore[index]
    return made


def loaded(pixels: np.ndarray) -> LoadedImage:
    return load_image(encode_png(pixels))


def yellow(
    at: tuple[int, int, int, int] = (8, 8, 32, 32), other: tuple[int, int, int] = COLOURS["blue"]
) -> LoadedImage:
    return loaded(scene((YELLOW, at), (other, (40, 60, 20, 30))))


def correct(
    app: OvamApplication,
    tool: Tool,
    image: LoadedImage,
    regions: list[tuple[str, np.ndarray]],
    taught: list[str],
    annotation: str = "1",
    exhaustive: bool | None = None,
) -> Correction:
    tool.images[image.sha256] = image
    tool.truths[annotation] = build_truths((image.height, image.width), regions, taught, exhaustive=exhaustive)
    new = NewCorrection(
        SCOPE, annotation, datetime.now(UTC).isoformat(), "7", image.sha256, {"tool": "tool"}, tuple(taught), "ann"
    )
    return app.store.add_correction(new)[0]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def propose(app: OvamApplication, image: LoadedImage, name: str, options: ProjectOptions = OPTIONS):  # type: ignore[no-untyped-def]
    return app.proposer.propose(image, [Label(name)], SCOPE, options)[0]


def test_one_mask_makes_an_active_unproven_token(app: OvamApplication) -> None:
    before = app.proposer.model_version([Label("defect_07")], SCOPE, OPTIONS)
    seen: list[float] = []
    result = app.learner.learn_mask(
        yellow(), box(8, 8, 32, 32), "defect_07", SCOPE, created_by="cli", progress=lambda f, m: seen.append(f)
    )
    assert result.active and result.version == 1 and "unproven" in result.reason
    assert seen == sorted(seen) and seen[-1] == 1.0
    version = app.store.get_version(SCOPE, "defect_07", "active")
    assert version.state == "unproven" and version.created_by == "cli"
    assert version.fingerprint["space"] == "space-1"
    assert version.recipe["epochs"] == 200
    for name in ("train_iou", "losses", "seconds", "examples", "word_iou", "libraries"):
        assert name in version.metrics
    assert version.metrics["losses"][-1] < version.metrics["losses"][0]
    assert version.metrics["train_iou"] > 0.9
    elsewhere = propose(app, yellow((20, 40, 24, 24), COLOURS["red"]), "defect_07")
    assert elsewhere.source == "token" and elsewhere.token_version == 1
    assert iou(elsewhere.mask, box(20, 40, 24, 24)) > 0.8
    assert app.proposer.model_version([Label("defect_07")], SCOPE, OPTIONS) != before


def test_known_word_is_learned_gently(app: OvamApplication, model: ColourModel) -> None:
    image = loaded(scene((COLOURS["red"], (8, 8, 32, 32))))
    result = app.learner.learn_mask(image, box(8, 8, 32, 32), "red", SCOPE, created_by="cli")
    version = app.store.get_version(SCOPE, "red", result.version)
    assert result.active and version.metrics["known_word"] is True
    assert version.recipe["ridge"] == model.attributor.calibration.word_recipe.ridge


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.zeros((64, 96), bool), "empty"),
        (np.ones((64, 96), bool), "whole picture"),
        (np.ones((10, 10), bool), r"shape \(10, 10\)"),
    ],
)
def test_unusable_masks_are_refused_and_leave_nothing(app: OvamApplication, mask: np.ndarray, match: str) -> None:
    with pytest.raises(BadMaskError, match=match):
        app.learner.learn_mask(yellow(), mask, "x", SCOPE, created_by="cli")
    assert app.store.list_corrections(SCOPE) == []
    assert app.store.list_tokens() == []


def test_five_pixels_are_learned_or_refused_in_a_sentence(app: OvamApplication) -> None:
    mask = np.zeros((64, 96), bool)
    mask[9, 9:14] = True
    assert app.learner.learn_mask(yellow(), mask, "scratch", SCOPE, created_by="cli").version == 1
    speck = np.zeros((64, 96), bool)
    speck[9, 9] = True
    with pytest.raises(BadMaskError, match="'speck' covers at most 6.2 % of a cell of the base model's 24x16 map"):
        app.learner.learn_mask(yellow(), speck, "speck", SCOPE, created_by="cli")
    assert app.store.list_corrections(SCOPE, label="speck")[0].state == "failed"


def test_newer_mask_of_the_same_image_replaces_the_older(app: OvamApplication) -> None:
    first = app.learner.learn_mask(yellow(), box(8, 8, 32, 32), "x", SCOPE, created_by="cli")
    second = app.learner.learn_mask(yellow(), box(8, 8, 30, 30), "x", SCOPE, created_by="cli")
    assert (first.version, second.version) == (1, 2)
    assert second.metrics["examples"] == 1
    states = [c.state for c in app.store.list_corrections(SCOPE)]
    assert states == ["learned", "retracted"]


def test_second_correction_proves_the_token(app: OvamApplication) -> None:
    app.learner.learn_mask(yellow(), box(8, 8, 32, 32), "x", SCOPE, created_by="cli")
    other = yellow((24, 10, 24, 30), COLOURS["green"])
    result = app.learner.learn_mask(other, box(24, 10, 24, 30), "x", SCOPE, created_by="cli")
    assert result.active and result.metrics["examples"] == 2
    held_out = result.metrics["held_out"]
    assert len(held_out["token"]) == len(held_out["word"]) == 2
    assert np.mean(held_out["token"]) > np.mean(held_out["word"])
    version = app.store.get_version(SCOPE, "x", "active")
    assert version.state == "proven" and version.parent_version == 1
    assert len(version.source_corrections) == 2


def test_word_that_does_better_is_used_and_the_figures_are_kept(app: OvamApplication) -> None:
    red_box = loaded(scene((COLOURS["red"], (8, 8, 32, 32)), (TEAL, (8, 56, 32, 32))))
    # The human marks teal things "red" once and red things once: each fold's token fails on the other, the word does not.
    app.learner.learn_mask(red_box, box(8, 56, 32, 32), "red", SCOPE, created_by="a")
    assert propose(app, red_box, "red").source == "token"
    again = loaded(scene((COLOURS["red"], (4, 4, 40, 40))))
    result = app.learner.learn_mask(again, box(4, 4, 40, 40), "red", SCOPE, created_by="a")
    assert not result.active and result.moved and "word does better" in result.reason
    version = app.store.get_version(SCOPE, "red", 2)
    assert version.state == "rejected" and version.metrics["held_out"]["word"]
    found = propose(app, red_box, "red")
    assert found.source == "word" and iou(found.mask, box(8, 8, 32, 32)) > 0.8


def test_correction_learns_every_label_and_negatives_are_evidence(app: OvamApplication, tool: Tool) -> None:
    image = yellow()
    regions = [("x", box(8, 8, 32, 32)), ("y", box(40, 60, 20, 30))]
    correction = correct(app, tool, image, regions, ["x", "y", "gone"])
    results = app.learner.learn_correction(correction.id)
    assert [r.label for r in results] == ["x", "y"]
    stored = app.store.get_correction(correction.id)
    assert stored.state == "learned" and "gone" in stored.note and stored.image_sha256 == image.sha256
    kinds = {m.label: m.kind for m in app.store.correction_masks([correction.id])}
    assert kinds == {"x": "positive", "y": "positive", "gone": "negative"}
    assert [t.class_name for t in app.store.list_tokens()] == ["x", "y"]


def test_negative_joins_the_examples_of_a_learned_class(app: OvamApplication, tool: Tool) -> None:
    app.learner.learn_correction(correct(app, tool, yellow(), [("x", box(8, 8, 32, 32))], ["x"], "1").id)
    orange = loaded(scene(((220, 140, 20), (8, 8, 32, 32))))
    assert propose(app, orange, "x").presence > 0.5
    (result,) = app.learner.learn_correction(correct(app, tool, orange, [], ["x"], "2").id)
    assert result.metrics["negatives"] == 1 and result.version == 2
    assert propose(app, orange, "x").presence < 0.5
    assert propose(app, yellow(), "x").present


def test_negative_alone_makes_no_token(app: OvamApplication, tool: Tool) -> None:
    correction = correct(app, tool, yellow(), [], ["x"])
    assert app.learner.learn_correction(correction.id) == []
    assert app.store.get_correction(correction.id).state == "learned"
    assert app.store.list_tokens() == []


def test_running_twice_gives_one_version(app: OvamApplication, tool: Tool, model: ColourModel) -> None:
    correction = correct(app, tool, yellow(), [("x", box(8, 8, 32, 32))], ["x"])
    first = app.learner.learn_correction(correction.id)
    fits = model.attributor.fits
    second = app.learner.learn_correction(correction.id)
    assert [r.version for r in first] == [r.version for r in second] == [1]
    assert model.attributor.fits == fits
    assert second[0].active and second[0].reason == first[0].reason


def test_a_second_run_leaves_what_a_human_chose_after_the_first(app: OvamApplication) -> None:
    red_box = loaded(scene((COLOURS["red"], (8, 8, 32, 32)), (TEAL, (8, 56, 32, 32))))
    app.learner.learn_mask(red_box, box(8, 56, 32, 32), "red", SCOPE, created_by="a")
    again = loaded(scene((COLOURS["red"], (4, 4, 40, 40))))
    assert not app.learner.learn_mask(again, box(4, 4, 40, 40), "red", SCOPE, created_by="a").active
    assert propose(app, red_box, "red").source == "word"
    app.store.promote(SCOPE, "red", 1, who="ann", why="I want the teal things")
    newest = app.store.list_corrections(SCOPE)[0]
    (result,) = app.learner.learn_correction(newest.id)
    assert result.version == 2 and not result.active
    assert propose(app, red_box, "red").source == "token"


def test_retracted_correction_is_not_learned_from(app: OvamApplication, tool: Tool) -> None:
    first = correct(app, tool, yellow(), [("x", box(40, 60, 20, 30))], ["x"], "1")
    app.learner.learn_correction(first.id)
    app.store.retract_corrections(SCOPE, ["1"], note="annotation deleted")
    assert app.learner.learn_correction(first.id) == []
    second = correct(app, tool, yellow(), [("x", box(8, 8, 32, 32))], ["x"], "2")
    (result,) = app.learner.learn_correction(second.id)
    assert result.metrics["examples"] == 1
    assert app.store.get_version(SCOPE, "x", 2).source_corrections == (second.id,)


def test_learning_off_keeps_the_correction_unlearned(app: OvamApplication, tool: Tool) -> None:
    app.store.put_project_options(SCOPE, {"learning": False})
    correction = correct(app, tool, yellow(), [("x", box(8, 8, 32, 32))], ["x"])
    assert app.learner.learn_correction(correction.id) == []
    assert app.store.get_correction(correction.id).state == "ignored"


def test_fetch_error_leaves_the_correction_pending(app: OvamApplication, tool: Tool) -> None:
    correction = correct(app, tool, yellow(), [("x", box(8, 8, 32, 32))], ["x"])
    tool.error = FetchError("The image could not be fetched: 401; set OVAM_LABEL_STUDIO_TOKEN.")
    with pytest.raises(FetchError):
        app.learner.learn_correction(correction.id)
    assert app.store.get_correction(correction.id).state == "pending"
    tool.error = None
    assert app.learner.learn_correction(correction.id)[0].active


@pytest.mark.parametrize("error", [BadImageError("No image."), None])
def test_unusable_correction_fails_with_its_sentence(app: OvamApplication, tool: Tool, error: OvamError | None) -> None:
    correction = correct(app, tool, yellow(), [], [])
    correction = correct(app, tool, yellow(), [("x", box(8, 8, 32, 32))], ["x"], "2")
    tool.error = error
    if error is None:
        tool.truths["2"] = []
    with pytest.raises(BadRequestError):
        app.learner.learn_correction(correction.id)
    stored = app.store.get_correction(correction.id)
    assert stored.state == "failed" and stored.note in ("No image.", "Region 'r1' was skipped.")


def test_no_known_background_is_refused_and_other_labels_still_learn(app: OvamApplication, tool: Tool) -> None:
    image = yellow()
    alone = correct(app, tool, image, [("x", box(8, 8, 32, 32))], ["x"], "1", exhaustive=False)
    with pytest.raises(BadMaskError, match="outside 'x'"):
        app.learner.learn_correction(alone.id)
    regions = [("x", box(8, 8, 32, 32)), ("y", box(40, 60, 20, 30))]
    both = correct(app, tool, image, regions, ["x", "y"], "1", exhaustive=False)
    assert [r.label for r in app.learner.learn_correction(both.id)] == ["x", "y"]


def test_older_examples_come_from_the_cache_or_are_fetched_again(app: OvamApplication, tool: Tool) -> None:
    app.learner.learn_correction(correct(app, tool, yellow(), [("x", box(8, 8, 32, 32))], ["x"], "1").id)
    second = yellow((20, 8, 30, 30))
    app.learner.learn_correction(correct(app, tool, second, [("x", box(20, 8, 30, 30))], ["x"], "2").id)
    assert tool.fetched == 2, "the first image's capture was cached"
    for path in app.settings.data_dir.glob("captures/*/*.safetensors"):
        path.unlink()
    third = yellow((4, 4, 40, 40))
    correction = correct(app, tool, third, [("x", box(4, 4, 40, 40))], ["x"], "3")
    (result,) = app.learner.learn_correction(correction.id)
    assert tool.fetched == 5 and result.metrics["examples"] == 3
    # An image that is gone for good is left out.
    for path in app.settings.data_dir.glob("captures/*/*.safetensors"):
        path.unlink()
    del tool.images[second.sha256]
    original = tool.image_of

    def gone(correction: Correction) -> tuple[LoadedImage, str]:
        if correction.image_ref not in tool.images:
            raise FetchError("404.")
        return original(correction)

    tool.image_of = gone  # type: ignore[method-assign]
    fourth = yellow((6, 6, 36, 36))
    (result,) = app.learner.learn_correction(correct(app, tool, fourth, [("x", box(6, 6, 36, 36))], ["x"], "4").id)
    assert result.metrics["examples"] == 3


def test_direct_image_is_read_again_after_a_restart_without_cache(settings: Settings) -> None:
    with build_application(settings, loader=ColourModel().load) as app:
        app.learner.learn_mask(yellow(), box(8, 8, 32, 32), "x", SCOPE, created_by="cli")
        for path in settings.data_dir.glob("captures/*/*.safetensors"):
            path.unlink()
    model = ColourModel()
    with build_application(settings, loader=model.load) as app:
        other = yellow((20, 8, 30, 30))
        result = app.learner.learn_mask(other, box(20, 8, 30, 30), "x", SCOPE, created_by="cli")
    assert result.metrics["examples"] == 2 and model.reader.unet_passes == 2


def test_unknown_tool_is_named(app: OvamApplication) -> None:
    new = NewCorrection(SCOPE, "1", "now", "7", "ref", {"tool": "cvat"}, ("x",))
    correction = app.store.add_correction(new)[0]
    with pytest.raises(OvamError, match="'cvat'"):
        app.learner.learn_correction(correction.id)


def test_presence_and_version_of_a_generated_image_are_untouched_by_learning(app: OvamApplication) -> None:
    from backends.contract import Needs

    image, _, _ = app.inference.generate("a green box", seed=2, needs=Needs())
    mask = propose(app, image, "green", replace(OPTIONS, presence=False)).mask
    app.learner.learn_mask(image, mask, "green", SCOPE, created_by="cli")
    record = app.store.get_image(image.sha256)
    assert record is not None and record.origin == "generated"


@pytest.mark.parametrize(
    ("token", "word", "known", "used", "state"),
    [
        ((0.6, 0.8), (0.5, 0.5), True, True, "proven"),
        ((0.5, 0.5), (0.5, 0.5), True, False, "rejected"),
        ((0.5, 0.5), (0.51, 0.51), False, True, "unproven"),
        ((0.5, 0.5), (0.51, 0.51), True, False, "rejected"),
        ((0.15, 0.15), (0.5, 0.5), False, True, "unproven"),
        ((0.05, 0.05), (0.5, 0.5), False, False, "rejected"),
        ((0.3, 0.3, 0.25, 0.25), (0.5, 0.5, 0.5, 0.5), False, False, "rejected"),
    ],
)
def test_promotion_rule(token: tuple[float, ...], word: tuple[float, ...], known: bool, used: bool, state: str) -> None:
    verdict = judge(Evidence(token, word), known=known, has_current=True)
    assert (verdict.use == "new", verdict.state) == (used, state)
    assert verdict.reason.endswith(".")
    assert judge(Evidence(), known=known, has_current=False).state == "unproven"


def lemon(at: int, other: tuple[int, int, int] = COLOURS["blue"]) -> tuple[LoadedImage, np.ndarray, np.ndarray]:
    """A picture with a yellow box (the class) and another: (image, mask of the class, mask of the other)."""
    image = yellow((at, at, 24, 24), other)
    return image, box(at, at, 24, 24), box(40, 60, 20, 30)


def teach(app: OvamApplication, at: int, *, good: bool = True) -> tuple[int, bool]:
    image, right, wrong = lemon(at)
    result = app.learner.learn_mask(image, right if good else wrong, "lemon", SCOPE, created_by="ann")
    return result.version, result.active


def test_a_bad_correction_after_three_good_ones_is_rejected_and_masks_stay(app: OvamApplication) -> None:
    for at in (2, 6, 10):
        assert teach(app, at)[1]
    image, right, _ = lemon(14, COLOURS["green"])
    before = propose(app, image, "lemon").mask
    version, active = teach(app, 18, good=False)
    assert not active
    refused = app.store.get_version(SCOPE, "lemon", version)
    bad = app.store.list_corrections(SCOPE)[0].id
    assert refused.state == "rejected" and refused.metrics["evidence"]["contradicts"]
    assert refused.metrics["evidence"]["set_aside"] == [bad] and "contradicts" in refused.metrics["reason"]
    assert np.array_equal(propose(app, image, "lemon").mask, before)
    assert app.store.get_token(SCOPE, "lemon").aliases == {"active": 3}
    # The next good one is learned from without it.
    version, active = teach(app, 22)
    assert active
    assert bad not in app.store.get_version(SCOPE, "lemon", version).source_corrections
    assert iou(propose(app, image, "lemon").mask, right) > 0.75


def test_the_same_corrections_are_fitted_once_in_a_process(app: OvamApplication, model: ColourModel) -> None:
    fits = []
    for at in (2, 6, 10, 14):
        before = model.attributor.fits
        teach(app, at)
        fits.append(model.attributor.fits - before)
    # All together, the newest alone, and all but one of the others; never what an earlier correction had asked for.
    assert fits == [1, 2, 4, 5]


def test_a_bad_first_correction_is_demoted_by_the_next_two(app: OvamApplication) -> None:
    image, right, _ = lemon(14, COLOURS["blue"])
    assert teach(app, 2, good=False) == (1, True)
    assert iou(propose(app, image, "lemon").mask, right) < 0.5
    teach(app, 6)
    version, active = teach(app, 10)
    assert active and app.store.get_version(SCOPE, "lemon", version).metrics["examples"] == 2
    assert iou(propose(app, image, "lemon").mask, right) > 0.75
    bad = app.store.list_corrections(SCOPE)[-1].id
    demoted = [v for v in app.store.list_versions(SCOPE, "lemon") if v.state == "rejected"]
    assert [v.number for v in demoted] == [1, 2] and all(bad in v.source_corrections for v in demoted)


def test_every_version_learned_from_what_is_set_aside_is_demoted(app: OvamApplication) -> None:
    for sources in ((1,), (1, 2), (2,)):
        new = NewTokenVersion({"space": "s"}, np.ones((2, 3), np.float32), {}, {}, sources)
        app.store.add_version(SCOPE, "lemon", new, aliases=("active",))
    current, used = app.store.get_version(SCOPE, "lemon", "active"), Verdict("new", "proven", "It is used.")
    demotions = app.learner._classes._demotions
    moved, kept = Moves("proven", "It is used.", ("active",)), Moves("rejected", "It is not used.")
    changes = demotions(SCOPE, "lemon", current, used, moved, (1, 9), lambda _: "")
    assert [(c.version, c.state) for c in changes] == [(2, "rejected"), (1, "rejected")]
    assert all("from correction 1, which the others contradict" in c.metrics["demoted"] for c in changes)
    assert demotions(SCOPE, "lemon", current, used, moved, (), lambda _: "") == []
    assert demotions(SCOPE, "lemon", current, used, kept, (1,), lambda _: "no") == [], (
        "what is in use stays, and what led to it"
    )
    changes = demotions(SCOPE, "lemon", current, used, moved, (1,), lambda v: "no" if v.number == 3 else "")
    assert [(c.version, c.why == "no") for c in changes] == [(3, True), (2, False), (1, False)]


def test_policy_manual_waits_for_a_human_and_auto_for_nobody(app: OvamApplication) -> None:
    app.store.change_project_options(SCOPE, {"policy": "manual"}, who="ann")
    assert teach(app, 2) == (1, False)
    assert app.store.get_token(SCOPE, "lemon").aliases == {"candidate": 1}
    assert "waits to be promoted" in app.store.get_version(SCOPE, "lemon", 1).metrics["reason"]
    app.store.promote(SCOPE, "lemon", "candidate", who="ann", why="good")
    app.store.change_project_options(SCOPE, {"policy": "auto"}, who="ann")
    for at in (6, 10):
        teach(app, at)
    version, active = teach(app, 18, good=False)
    assert active and "the policy is auto" in app.store.get_version(SCOPE, "lemon", version).metrics["reason"]


def test_a_paused_class_keeps_its_corrections_as_evidence(app: OvamApplication, tool: Tool) -> None:
    app.store.pause_class(SCOPE, "x", True, who="ann")
    first = correct(app, tool, yellow(), [("x", box(8, 8, 32, 32)), ("y", box(40, 60, 20, 30))], ["x", "y"], "1")
    assert [r.label for r in app.learner.learn_correction(first.id)] == ["y"]
    assert "Learning of 'x' is paused" in app.store.get_correction(first.id).note
    app.store.pause_class(SCOPE, "x", False, who="ann")
    second = yellow((20, 8, 30, 30))
    (result,) = app.learner.learn_correction(correct(app, tool, second, [("x", box(20, 8, 30, 30))], ["x"], "2").id)
    assert result.metrics["examples"] == 2


def test_a_class_that_is_not_listed_teaches_once_it_is(app: OvamApplication, tool: Tool) -> None:
    app.store.change_project_options(SCOPE, {"classes": ["y"]}, who="ann")
    first = correct(app, tool, yellow(), [("x", box(8, 8, 32, 32)), ("y", box(40, 60, 20, 30))], ["x", "y"], "1")
    assert [r.label for r in app.learner.learn_correction(first.id)] == ["y"]
    assert "'x' is not among the project's classes" in app.store.get_correction(first.id).note
    assert app.learner.review_class(SCOPE, "x") is None
    fresh = change_options(app.store, app.settings, SCOPE, {"classes": None}, who="ann", why="")
    assert fresh == ["x"]
    (job,) = app.store.list_jobs(kinds=["review"])
    result = app.learner.review_class(SCOPE, job.payload["label"])
    assert result is not None and (result.version, result.metrics["examples"]) == (1, 1)
    with pytest.raises(BadRequestError, match="policy"):
        change_options(app.store, app.settings, SCOPE, {"policy": "perhaps"}, who="ann", why="")
    assert app.store.get_project_options(SCOPE) == {}


def test_a_retracted_correction_is_unlearned(app: OvamApplication, tool: Tool) -> None:
    good, bad = yellow(), yellow((20, 8, 30, 30))
    app.learner.learn_correction(correct(app, tool, good, [("x", box(8, 8, 32, 32))], ["x"], "1").id)
    app.learner.learn_correction(correct(app, tool, bad, [("x", box(40, 60, 20, 30))], ["x"], "2").id)
    app.store.set_alias(SCOPE, "x", "active", 2, who="ann", why="")
    app.store.retract_corrections(SCOPE, ["2"], note="The annotation was deleted.", job_kind="review")
    (job,) = app.store.list_jobs(kinds=["review"])
    result = app.learner.review_class(SCOPE, job.payload["label"])
    assert result is not None and (result.version, result.active, result.moved) == (1, True, True)
    app.store.retract_corrections(SCOPE, ["1"], note="The annotation was deleted.", job_kind="review")
    result = app.learner.review_class(SCOPE, "x")
    assert result is not None and (result.version, result.active, result.moved) == (1, False, True)
    assert app.store.get_token(SCOPE, "x").aliases == {}
    assert propose(app, good, "x").source == "word"
    assert app.learner.review_class(SCOPE, "x") is None


def test_a_demoted_version_is_used_again_once_what_spoke_against_it_is_retracted(
    app: OvamApplication, tool: Tool
) -> None:
    right, wrong = yellow(), yellow((20, 8, 30, 30))
    app.learner.learn_correction(correct(app, tool, right, [("x", box(8, 8, 32, 32))], ["x"], "1").id)
    app.learner.learn_correction(correct(app, tool, wrong, [("x", box(40, 60, 20, 30))], ["x"], "2").id)
    app.store.set_alias(SCOPE, "x", "active", 2, who="ann", why="")
    demoted = StateChange(1, "rejected", "worse than the word", {"demoted": "worse than the word"})
    app.store.decide(SCOPE, "x", aliases={}, states=[demoted], who="gate", why="")
    app.store.retract_corrections(SCOPE, ["2"], note="The annotation was deleted.", job_kind="review")
    result = app.learner.review_class(SCOPE, "x")
    assert result is not None and (result.version, result.active, result.moved) == (1, True, True)
    back = app.store.get_version(SCOPE, "x", 1)
    assert back.state == "unproven" and back.metrics["demoted"] is None


def test_another_verdict_meanwhile_is_seen(app: OvamApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alias moves between judging and storing: the judging is done again, with the one that is active by then."""
    teach(app, 2)
    original, calls = app.store.add_version, []

    def meanwhile(*arguments: object, **options: object) -> object:
        calls.append(options["expect"])
        if len(calls) == 1:
            app.store.set_alias(SCOPE, "lemon", "active", None, who="ann", why="off")
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(app.store, "add_version", meanwhile)
    teach(app, 6)
    assert calls == [{"active": 1}, {"active": None}]
    assert app.store.get_version(SCOPE, "lemon", 2).parent_version is None
