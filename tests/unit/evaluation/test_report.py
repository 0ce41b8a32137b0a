"""The report holds what the contract of ``make demo-check`` asks for, and says so when something is missing."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.report_page import write_page, write_sheet
from ovam_labeler.demo.scenes import Plan, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.measure import Learned, Measurement
from ovam_labeler.evaluation.play import Played
from ovam_labeler.evaluation.pooled import pool
from ovam_labeler.evaluation.presence import Judgement, at_recall, summary
from ovam_labeler.evaluation.report import build_report, clean, missing
from token_store.entities import Scope, TokenVersion

GENERATED = {"images": 2, "unet_passes": 0}


def version(name: str) -> TokenVersion:
    return TokenVersion(
        id=1,
        scope=Scope("t", "1"),
        class_name=name,
        number=1,
        fingerprint={},
        embedding=np.zeros((2, 4), np.float32),
        sha256="",
        recipe={},
        metrics={"losses": [0.7, 0.4, 0.2], "seconds": 0.5},
        state="unproven",
        source_corrections=(),
        parent_version=None,
        created_by="",
        created_at=datetime.now(UTC),
        aliases=("active",),
    )


@pytest.fixture(scope="module")
def played() -> Played:
    """A session whose maps are known: words blur the truth with its surroundings, tokens less, three masks least."""
    scenes = make_scenes(load_pack("val"), 0, compose, Plan(novel=3, known=2, corrections=1, tests=4))
    measurement = Measurement(None, scenes)  # type: ignore[arg-type]  # rows() reads the curves only
    rng = np.random.default_rng(0)
    measurement.learned = {"after": {}, "after3": {}}
    for concept in scenes.concepts:
        tests = scenes.of(concept.name, "test")
        measurement.chosen[concept.name] = "thing"
        for kind, noise in (("own_word", 3.0), ("word", 2.0), ("after", 1.0), ("after3", 0.5), ("after:wrong", 9.0)):
            maps = [s.truth + noise * rng.random(s.truth.shape, np.float32) for s in tests]
            from ovam_labeler.evaluation.measure import Kind

            measurement.kinds.setdefault(kind, Kind()).add(concept.name, maps, tests)
        # The known concepts' tokens were refused: the product goes on with their words.
        for stage in ("after", "after3"):
            measurement.learned[stage][concept.name] = Learned(version(concept.name), used=not concept.has_word)
    played = Played(scenes, measurement)
    for stage, sure in (("before", 0.6), ("after", 0.9), ("after3", 0.95)):
        played.served[stage] = {s.name: {s.concept: s.truth} for s in scenes.scenes if s.role == "test"}
        played.judged[stage] = [
            Judgement(
                s.name,
                n,
                c.has_word,
                n in s.masks,
                n in s.masks,
                sure if n in s.masks else 0.3,
                "word" if stage == "before" or c.has_word else "token",
            )
            for s in scenes.scenes
            if s.role == "test"
            for c in scenes.concepts
            for n in [c.name]
        ]
    played.timings = {"all": 1.0}
    return played


@pytest.fixture(scope="module")
def report(played) -> dict:
    return build_report(played, seed=7, generated=GENERATED, extra={"transport": "none"})


def test_report_has_the_contracts_keys_and_is_strict_json(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert {"seed", "concepts", "lift_ci", "absent", "generated", "timings"} <= set(report)
    for row in report["concepts"]:
        assert {"name", "has_word", "images", "before", "after", "after3", "wrong_token", "foreground"} <= set(row)
        assert row["images"] == 4
        assert all(0 <= row[f] <= 1 for f in ("before", "after", "after3", "wrong_token", "foreground"))
    assert set(report["absent"]["recall"]) >= {"before", "after"}
    assert set(report["absent"]["false_masks_per_image"]) >= {"before", "after"}
    assert missing(report) == []


def test_better_maps_give_better_figures(report):
    for row in report["concepts"]:
        if row["has_word"]:  # the token was refused: what is used after is the word
            assert row["uses"]["after"] == "word"
            assert row["after"] == row["own_word"] != row["token"]
        else:
            assert row["after3"] > row["after"] > row["before"] > row["wrong_token"]
    low, high = report["lift_ci"]
    lifts = [r["after"] - r["before"] for r in report["concepts"] if not r["has_word"]]
    assert 0 < low <= np.mean(lifts) <= high


def test_served_masks_are_scored_with_missing_ones_as_zero(played, report):
    assert all(row["served"]["after"] == 1.0 for row in report["concepts"])
    emptied = Played(
        played.scenes, played.measurement, {"after": {n: {} for n in played.served["after"]}}, {}, {"x": 1.0}
    )
    rows = build_report(emptied, seed=0, generated={}, extra={})["concepts"]
    assert all(row["served"]["after"] == 0.0 for row in rows)


def test_what_is_missing_is_named(played):
    bare = build_report(Played(played.scenes, Measurement(None, played.scenes)), seed=0, generated={}, extra={})  # type: ignore[arg-type]
    sentences = missing(bare)
    assert any("'before'" in s for s in sentences)
    assert any("recall.after" in s for s in sentences)
    assert any("generated" in s for s in sentences)
    assert bare["lift_ci"] == [None, None]


def test_presence_summary_counts_masks_per_image():
    judged = [
        Judgement("a", "x", True, True, True, 0.9, "word"),
        Judgement("a", "y", True, False, True, 0.8, "word"),
        Judgement("b", "x", True, True, False, 0.2, "word"),
        Judgement("b", "y", True, False, False, 0.1, "word"),
    ]
    assert summary(judged) == {"recall": 0.5, "false_masks_per_image": 0.5}
    assert at_recall(judged, source="word", has_word=True)["painted"] == 0.5
    assert at_recall(judged, source="token", has_word=True)["present"] == 0


def test_pooled_bars_follow_the_reports(report):
    bars = pool([report, report])
    novel = [r for r in report["concepts"] if not r["has_word"]]
    assert bars[0].value == pytest.approx(100 * np.mean([r["after"] - r["before"] for r in novel]))
    assert bars[0].met == (bars[0].value >= 5)
    worse = json.loads(json.dumps(report))
    for row in worse["concepts"]:
        row["after"] = row["before"] - 0.02
    assert not pool([worse])[0].met
    assert not [b for b in pool([worse]) if b.text.startswith("with a word")][0].met


def test_clean_leaves_no_nan():
    assert clean({"a": np.float32(0.5), "b": [float("nan"), np.int64(3)], "c": float("inf")}) == {
        "a": 0.5,
        "b": [None, 3],
        "c": None,
    }


def test_page_is_self_contained_and_shows_every_concept(played, report, tmp_path):
    write_page(tmp_path / "index.html", report, played, [("a rose", Image.new("RGB", (8, 8)))])
    page = (tmp_path / "index.html").read_text()
    assert all(f">{row['name']} <" in page for row in report["concepts"])
    assert page.count("data:image/webp;base64,") >= 7 * len(report["concepts"])
    assert page.count("<polyline") == 2 * len(report["concepts"])
    assert "http" not in page.replace("http-equiv", "")


def test_sheet_has_a_row_for_every_class_without_a_word(played, report, tmp_path):
    write_sheet(tmp_path / "one.png", report, played)
    two = {**report, "concepts": [r for r in report["concepts"] if not r["has_word"]][:1]}
    write_sheet(tmp_path / "two.png", two, played)
    full, single = Image.open(tmp_path / "one.png"), Image.open(tmp_path / "two.png")
    assert full.width == single.width
    assert full.height - single.height == 2 * (single.height - 28)
