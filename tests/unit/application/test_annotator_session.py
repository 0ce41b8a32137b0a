"""The simulated annotator, on the real application with the colour model: what it submits is learned, or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
from colour_model import COLOURS, ColourModel, box, scene

from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.demo.scenes import Scene
from ovam_labeler.evaluation.annotator.__main__ import as_json, read_json
from ovam_labeler.evaluation.annotator.edit_time import Pace
from ovam_labeler.evaluation.annotator.figures import LOOP, WORDS, Run
from ovam_labeler.evaluation.annotator.session import FALSE, MISSING, WRONG, Annotator, MaskWork
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.corrections import TOOL
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from token_store.entities import Scope

#: "rot" is no word of the model's; "green" is one.
LABELS = ["rot", "green"]


@pytest.fixture
def studio(settings: Settings, model: ColourModel) -> Iterator[OvamApplication]:
    with build_application(settings, {TOOL: LabelStudioTool(settings)}, loader=model.load) as application:
        yield application


def picture(place: int, **where: tuple[int, int, int, int]) -> Scene:
    names = {"rot": "red", "green": "green"}
    objects = [(COLOURS[names[label]], at) for label, at in where.items()]
    masks = {label: box(*at) for label, at in where.items()}
    return Scene(f"{place}", "rot", "test", place, "", True, scene(*objects), masks)


def stream() -> list[Scene]:
    """Red boxes in different places; a green one in each second picture."""
    pictures = []
    for place in range(6):
        where = {"rot": (8 + 4 * place, 8, 24, 24)}
        if place % 2:
            where["green"] = (16, 56, 24, 28)
        pictures.append(picture(place, **where))
    return pictures


def label(app: OvamApplication, project: int, **options: object) -> list[MaskWork]:
    web = create_app(app)
    app.start_worker()
    return Annotator(app, web, project, LABELS, options, Pace()).label(stream())


def test_the_loop_learns_from_what_is_submitted_one_picture_late(studio: OvamApplication):
    found = label(studio, 1)
    scope = Scope("default", "1")
    assert [one.place for one in found if one.label == "rot" and one.draw] == [0, 1, 2, 3, 4, 5]
    sources = {one.place: one.source for one in found if one.label == "rot"}
    # Picture 1 was asked for before the correction of picture 0 was learned.
    assert "token" not in (sources[0], sources[1]) and sources[2] == "token"
    token = studio.store.get_token(scope, "rot")
    assert token.aliases.get("active") is not None
    late = [one for one in found if one.label == "rot" and one.place >= 2]
    assert all(one.iou is not None and one.iou > 0.8 for one in late)
    taught = studio.store.list_corrections(scope, label="rot", states=("learned",))
    untaught = [one for one in found if one.label == "rot" and one.met not in (MISSING, WRONG, FALSE)]
    assert len(taught) == 6 - len(untaught)


def test_words_only_never_learns(studio: OvamApplication):
    found = label(studio, 2, learning=False)
    assert studio.store.list_tokens(Scope("default", "2")) == []
    assert {one.source for one in found} <= {"", "word"}
    masks = sum(one.draw is not None for one in found)
    assert masks == 9, "six red boxes and three green ones"


def test_runs_are_kept_and_read_again(studio: OvamApplication):
    found = label(studio, 3, learning=False)
    run = Run(7, {"rot": False, "green": True}, 6, {WORDS: found, LOOP: found}, {WORDS: [], LOOP: ["rot"]})
    again, more = read_json(as_json(run, space="abc", tolerance=0.01))
    assert more == {"space": "abc", "tolerance": 0.01}
    assert json.loads(json.dumps(asdict(again))) == json.loads(json.dumps(asdict(run)))
    assert again.sessions[LOOP] == list(found) and np.isfinite(again.sessions[LOOP][0].draw.trace)
