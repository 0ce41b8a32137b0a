"""Rollback through the real predict path, with the embedded model: the same RLE, another model version, the tasks found."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.demo.scenes import Plan, SceneSet, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.app import create_app
from token_store.entities import Scope

SCOPE = Scope("default", "1")


@pytest.fixture
def scenes() -> SceneSet:
    return make_scenes(load_pack("test"), 0, compose, Plan(novel=1, known=0, corrections=2, tests=2))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[OvamApplication]:
    with build_application(Settings(data_dir=tmp_path / "state", _env_file=None)) as made:
        yield made


def predictions(app: OvamApplication, scenes: SceneSet) -> list[dict[str, Any]]:
    """What Label Studio gets for two tasks, from a server that remembers no prediction."""
    (concept,) = scenes.concepts
    config = (
        '<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">'
        f'<Label value="{concept.name}"/></BrushLabels></View>'
    )
    tasks = [
        {"id": number, "data": {"image": "data:image/png;base64," + base64.b64encode(encode_png(s.image)).decode()}}
        for number, s in enumerate(scenes.of(concept.name, "test"), start=1)
    ]
    app.store.put_project_options(SCOPE, {"presence": False})
    client = create_app(app).test_client()
    answer = client.post("/predict", json={"tasks": tasks, "project": "1.17", "label_config": config, "params": {}})
    assert answer.status_code == 200, answer.json
    return list(answer.json["results"])


def masks(made: list[dict[str, Any]]) -> list[Any]:
    return [[region["value"]["rle"] for region in one["result"]] for one in made]


def versions(made: list[dict[str, Any]]) -> set[str]:
    return {one["model_version"] for one in made}


@pytest.mark.slow
def test_rollback_restores_the_previous_predictions_exactly(app: OvamApplication, scenes: SceneSet) -> None:
    (concept,) = scenes.concepts
    by_word = predictions(app, scenes)
    first, second = scenes.of(concept.name, "correction")
    made = {}
    for scene in (first, second):
        image = load_image(encode_png(scene.image))
        result = app.learner.learn_mask(image, scene.truth, concept.name, SCOPE, created_by="test")
        app.store.promote(SCOPE, concept.name, result.version, who="test", why="whatever the gate says")
        made[result.version] = predictions(app, scenes)
    assert all(masks(one)[0] and masks(one)[1] for one in (by_word, *made.values()))
    assert masks(made[1]) != masks(made[2]) and versions(made[1]).isdisjoint(versions(made[2]))
    assert [s.task_id for s in app.store.affected_tasks(SCOPE, concept.name, 2)] == ["2", "1"]
    assert app.store.affected_tasks(SCOPE, concept.name, 1) == []

    app.store.rollback(SCOPE, concept.name, who="ann", why="worse on small ones")
    # Until they are asked for again, the tasks that the version touched are known.
    assert {s.task_id for s in app.store.affected_tasks(SCOPE, concept.name, 2)} == {"1", "2"}
    back = predictions(app, scenes)
    assert masks(back) == masks(made[1]) and versions(back) == versions(made[1])
    assert app.store.affected_tasks(SCOPE, concept.name, 2) == []

    app.store.rollback(SCOPE, concept.name, who="ann", why="the word again")
    assert masks(predictions(app, scenes)) == masks(by_word)
    assert {s.task_id for s in app.store.affected_tasks(SCOPE, concept.name, None)} == {"1", "2"}
