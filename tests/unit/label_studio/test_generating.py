"""Generated pictures as tasks: prompts x seeds become jobs; nothing is uploaded twice, and predicting reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served_application import ServedApplication

from ovam_labeler.errors import BadRequestError, FetchError
from ovam_labeler.generating import GenerateWish, generation_id, read_prompts, read_size
from ovam_labeler.jobs.kinds import GENERATE
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio import generating
from ovam_labeler.tools.label_studio.generating import Generator
from token_store.entities import Job, Scope

SCOPE = Scope("default", "2")


class Stage(ServedApplication):
    """With what generates pictures, and a worker."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.generator: Generator = self.app.extensions["ovam_generate"]

    def queue(self, *prompts: str, **wish: Any) -> list[Job]:
        return self.generator.queue(SCOPE, GenerateWish(prompts, **wish))

    def work(self) -> list[dict[str, Any]]:
        """Run what waits as a worker does; returns the results."""
        results = []
        while (job := self.application.store.claim_job("w", (GENERATE,))) is not None:
            result = dict(self.generator.run(job, lambda _f, _m: None))
            self.application.store.finish_job(job.id, state="done", result=result)
            results.append(result)
        return results


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    settings = Settings(data_dir=tmp_path, label_studio_url="http://studio", _env_file=None)  # type: ignore[call-arg]
    made = Stage(settings)
    yield made
    made.application.close()


def test_prompts_times_seeds_become_tasks_that_say_how_they_were_made(stage: Stage) -> None:
    jobs = stage.queue("a red ball", "a blue box", seed=7, count=2, size=(48, 64))
    assert [(j.payload["prompt"], j.payload["seed"]) for j in jobs] == [
        ("a red ball", 7), ("a red ball", 8), ("a blue box", 7), ("a blue box", 8),
    ]  # fmt: skip
    done = stage.work()
    assert [row["made"] for row in done] == [True] * 4 and [row["task"] for row in done] == [1, 2, 3, 4]
    data = stage.studio.tasks[2]["data"]
    reference = data.pop("image")
    assert reference.startswith("/data/upload/2/") and data == {
        "prompt": "a red ball", "seed": 8, "steps": 1, "size": "64x48", "model": "embedded",
        "generation_id": data["generation_id"],
    }  # fmt: skip
    assert len({t["data"]["generation_id"] for t in stage.studio.tasks.values()}) == 4


def test_predicting_a_generated_task_runs_no_diffusion_model(stage: Stage) -> None:
    stage.queue("a red ball", count=3)
    stage.work()
    passes = stage.model.reader.unet_passes
    assert passes == 3 and all(row["model_version"] for row in stage.predict())
    assert stage.model.reader.unet_passes == passes


def test_pictures_asked_for_again_are_left_alone_unless_their_task_was_deleted(stage: Stage) -> None:
    first = stage.queue("a red ball", count=2)
    assert [j.id for j in stage.queue("a red ball", count=3)][:2] == [j.id for j in first], "they wait already"
    stage.work()
    stage.queue("a red ball", count=3)
    assert [row["made"] for row in stage.work()] == [False] * 3
    assert len(stage.studio.tasks) == len(stage.studio.files) == stage.model.reader.unet_passes == 3
    stage.studio.delete_task(1)
    stage.queue("a red ball")
    assert [row["made"] for row in stage.work()] == [True] and len(stage.studio.tasks) == 3
    assert len(stage.studio.files) == 3, "the file was there"


@pytest.mark.parametrize("after", ["upload", "task"])
def test_a_job_killed_after_the_upload_does_not_upload_twice(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """The kill: the process ends between two steps, and its job is queued again by the next start."""

    class KilledError(BaseException):
        pass

    place = {"upload": "_uploaded", "task": "create_task"}[after]
    owner: Any = generating if after == "upload" else type(stage.studio.client())
    real: Callable[..., Any] = getattr(owner, place)

    def and_die(*args: Any) -> Any:
        real(*args)
        raise KilledError

    monkeypatch.setattr(owner, place, and_die)
    (job,) = stage.queue("a red ball")
    with pytest.raises(KilledError):
        stage.work()
    assert len(stage.studio.files) == 1 and len(stage.studio.tasks) == (0 if after == "upload" else 1)
    monkeypatch.setattr(owner, place, real)
    assert [j.id for j in stage.application.store.requeue_interrupted("w")] == [job.id]
    (done,) = stage.work()
    assert done == {"task": 1, "generation_id": done["generation_id"], "made": after == "upload"}
    assert len(stage.studio.files) == len(stage.studio.tasks) == 1
    stage.predict()
    assert stage.model.reader.unet_passes == (2 if after == "upload" else 1)


def test_what_cannot_be_generated_is_said_before_anything_is_queued(stage: Stage) -> None:
    with pytest.raises(BadRequestError, match="no known Label Studio; known are default"):
        stage.generator.queue(Scope("other", "2"), GenerateWish(("a red ball",)))
    with pytest.raises(FetchError, match="404"):
        stage.generator.queue(Scope("default", "3"), GenerateWish(("a red ball",)))
    stage.studio.set_config(
        '<View><Image name="a" value="$a"/><Image name="b" value="$b"/><BrushLabels name="t" toName="a"><Label value="x"/>'
        '</BrushLabels><BrushLabels name="u" toName="b"><Label value="x"/></BrushLabels></View>'
    )
    with pytest.raises(BadRequestError, match="shows 2 pictures"):
        stage.queue("a red ball")
    assert stage.application.store.list_jobs() == []


def test_learning_comes_before_pictures_that_wait(stage: Stage) -> None:
    """Hundreds of pictures keep no annotator waiting for a token."""
    stage.queue("a red ball", count=3)
    store = stage.application.store
    learn = store.add_job("learn", {"correction_id": 1})
    claimed = [stage.application.jobs._claim() for _ in range(2)]  # type: ignore[attr-defined]
    assert [(job.kind, job.id) for job in claimed if job] == [("learn", learn.id), (GENERATE, 1)]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"prompts": ()}, "prompt is empty"),
        ({"prompts": ("a", " ")}, "prompt is empty"),
        ({"prompts": ("a" * 1001,)}, "1001 characters"),
        ({"prompts": ("a",), "seed": -1}, "seed is -1"),
        ({"prompts": ("a",), "count": 0}, "count is 0"),
        ({"prompts": ("a", "b"), "count": 9000}, "18000 pictures"),
        ({"prompts": ("a",), "steps": 0}, "steps is 0"),
        ({"prompts": ("a",), "guidance": -1.0}, "guidance is -1"),
        ({"prompts": ("a",), "size": (0, 9)}, "size is 0"),
    ],
)
def test_a_wish_out_of_bounds_names_the_value_and_what_is_allowed(wish: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        GenerateWish(**wish)


def test_reading_of_prompts_and_sizes() -> None:
    assert read_prompts(" a \n\n b\r\na") == ("a", "b", "a")
    assert GenerateWish(("a", "b", "a")).pictures() == [
        {"prompt": "a", "seed": 0, "options": {}},
        {"prompt": "b", "seed": 0, "options": {}},
    ]
    assert read_size("") is None and read_size("640x480") == (480, 640)
    with pytest.raises(BadRequestError, match="WIDTHxHEIGHT"):
        read_size("640")
    one = {"prompt": "a", "seed": 1, "options": {"steps": 3, "guidance": 2.0}}
    assert generation_id(one, "m") == generation_id({**one, "connection": "x"}, "m")
    others = [{**one, "seed": 2}, {**one, "prompt": "b"}, {**one, "options": {"steps": 3}}]
    assert len({generation_id(p, "m") for p in [one, *others]} | {generation_id(one, "n")}) == 5
