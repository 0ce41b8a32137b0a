"""A project's options and pictures on its page."""

from __future__ import annotations

from typing import Any

import pytest
from pages_helpers import SCOPE, Page, Visitor, correction, learn

from ovam_labeler.application import OvamApplication
from ovam_labeler.generating import GenerateWish
from ovam_labeler.jobs.kinds import GENERATE
from ovam_labeler.options import project_options
from ovam_labeler.settings import Settings
from token_store.entities import Job, Scope

AT = "/pages/project"


class Studio:
    """Stands for a labeling tool that takes pictures."""

    def __init__(self, application: OvamApplication) -> None:
        self.application = application

    def knows(self, scope: Scope) -> bool:
        return scope.connection == "default"

    def queue(self, scope: Scope, wish: GenerateWish) -> list[Job]:
        where = {"connection": scope.connection, "project": scope.project}
        return [self.application.store.add_job(GENERATE, {**where, **picture}) for picture in wish.pictures()]


def sent(page: Page, **changes: Any) -> dict[str, Any]:
    """The fields of the masks form as a browser sends them, some changed; None = not sent, as an empty tick box."""
    names = {"words", "presence", "threshold", "push", "max_regions", "polygon_points", "tiles"}
    values: dict[str, Any] = {"act": "masks", "overlap": "exclusive", "regions": "class", "exhaustive": ""}
    values |= {"method": "ovam", "refiner": Settings(_env_file=None).refiner, "which": "all"}
    for field in page.all("input"):
        if field.get("name") in names and "disabled" not in field and field.get("type") != "hidden":
            ticked = field["type"] != "checkbox" or "checked" in field
            values[str(field["name"])] = (
                (field.get("value") or "" if field["type"] != "checkbox" else "on") if ticked else None
            )
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


@pytest.fixture
def known(application: OvamApplication) -> OvamApplication:
    """A project whose labels are known and that has learned nothing."""
    application.store.change_project_options(SCOPE, {}, who="label studio")
    application.store.put_note(SCOPE, "labels", {"labels": [["tag", "disc", {}], ["tag", "bar", {}]]})
    return application


def options(application: OvamApplication) -> Any:
    return project_options(application.settings, application.store.get_project_options(SCOPE))


def test_options_are_set_on_the_page_and_a_default_is_not_written(visitor: Visitor, known: OvamApplication) -> None:
    moved: list[Scope] = []
    visitor.app.extensions["ovam_moved"] = moved.append
    page = visitor.get(AT, scope="default/2")
    visitor.send(page, AT, **sent(page))
    assert known.store.get_project_options(SCOPE) == {} and moved == []
    changed = sent(
        page, overlap="independent", threshold="0.4", push="3", words=None, exhaustive="no", reason="tired of it"
    )
    page = visitor.send(page, AT, **changed)
    assert "Saved. Tasks are predicted anew" in page.text and moved == [SCOPE]
    assert known.store.get_project_options(SCOPE) == {
        "overlap": "independent", "threshold": 0.4, "push": 3, "words": False, "exhaustive": False,
    }  # fmt: skip
    assert known.store.audit(1)[0]["why"] == "tired of it"
    (push,) = page.all("input", name="push")
    assert push["value"] == "3"
    visitor.send(page, AT, **sent(page, threshold="", exhaustive=""))
    assert known.store.get_project_options(SCOPE) == {"push": 3, "words": False}


def test_classes_to_learn_are_ticked(visitor: Visitor, known: OvamApplication) -> None:
    page = visitor.get(AT, scope="default/2")
    assert [a["value"] for a in page.all("input", name="class")] == ["disc", "bar"]
    correction(known, labels=("bar",))
    visitor.send(page, AT, **sent(page, which="these"), status=400)
    page = visitor.send(page, AT, **{**sent(page, which="these"), "class": ["disc"]})
    assert options(known).classes == ("disc",)
    assert [a["value"] for a in page.all("input", name="class") if "checked" in a] == ["disc"]
    assert known.store.list_jobs(kinds=("review",)) == []
    visitor.send(page, AT, **sent(page))
    assert options(known).classes is None
    assert [job.payload["label"] for job in known.store.list_jobs(kinds=("review",))] == ["bar"]


def test_what_label_studio_sets_is_shown_and_left_alone(visitor: Visitor, known: OvamApplication) -> None:
    extra = {"push": 7, "classes": ["bar"], "policy": "manual"}
    known.store.change_project_options(SCOPE, {"extra_params": extra}, who="label studio")
    page = visitor.get(AT, scope="default/2")
    (push,) = page.all("input", name="push")
    assert "disabled" in push and push["value"] == "7" and page.all("input", name="class") == []
    assert page.text.count("set in Label Studio") == 3
    visitor.send(page, AT, **sent(page, push="1", tiles="2"))
    visitor.send(page, AT, act="settings", policy="auto")
    assert known.store.get_project_options(SCOPE) == {"extra_params": extra, "tiles": 2, "learning": False}
    assert (options(known).push, options(known).classes, options(known).policy) == (7, ("bar",), "manual")


@pytest.mark.parametrize(
    ("field", "value"),
    [("threshold", "2"), ("threshold", "x"), ("push", "-1"), ("push", ""), ("tiles", "9"), ("method", "magic"),
     ("overlap", "both"), ("exhaustive", "perhaps"), ("polygon_points", "1e3")],
)  # fmt: skip
def test_a_wrong_value_is_named_and_nothing_is_changed(
    visitor: Visitor, known: OvamApplication, field: str, value: str
) -> None:
    page = visitor.get(AT, scope="default/2")
    answer = visitor.send(page, AT, **sent(page, **{field: value}), status=400)
    assert field in answer.text and "allowed" in answer.text
    assert known.store.get_project_options(SCOPE) == {}


def test_pictures_are_asked_for_and_followed(visitor: Visitor, known: OvamApplication) -> None:
    page = visitor.get(AT, scope="default/2")
    assert "ovam-labeler connect" in page.text and page.all("textarea") == []
    visitor.send(page, "/pages/generate", prompts="a red ball", status=400)
    visitor.app.extensions["ovam_generate"] = Studio(known)
    page = visitor.get(AT, scope="default/2")
    form = {
        "prompts": "a red ball\n\na blue box",
        "seed": "5",
        "count": "2",
        "size": "64x48",
        "steps": "3",
        "guidance": "1.5",
    }
    page = visitor.send(page, "/pages/generate", **form, negative_prompt="text")
    assert "4 pictures asked for" in page.text and "0 of 4 pictures made, 4 to go" in page.text
    jobs = known.store.list_jobs(kinds=(GENERATE,))
    made = {"steps": 3, "guidance": 1.5, "negative_prompt": "text", "size": [48, 64]}
    assert sorted((j.payload["prompt"], j.payload["seed"]) for j in jobs)[0] == ("a blue box", 5)
    assert all(j.payload["options"] == made for j in jobs)
    first = known.store.claim_job("w", (GENERATE,))
    second = known.store.claim_job("w", (GENERATE,))
    assert first is not None and second is not None
    known.store.finish_job(first.id, state="done", result={"task": 12, "made": True})
    known.store.update_job(second.id, progress=0.5, message="Generating: step 2 of 4.")
    page = visitor.get(AT, scope="default/2")
    assert "1 of 4 pictures made, 3 to go. Generating: step 2 of 4." in page.text
    assert float(str(page.all("progress")[0]["value"])) == pytest.approx(1.5 / 4)
    jobs_page = visitor.get("/pages/jobs", kind=GENERATE)
    assert "“a red ball”, seed 5" in jobs_page.text and "task 12" in jobs_page.text
    assert "“a red ball”" not in visitor.get("/pages/jobs", kind="learn").text
    visitor.send(page, "/pages/generate", act="cancel")
    assert [len(known.store.list_jobs(states=(s,), kinds=(GENERATE,))) for s in ("queued", "running")] == [0, 1]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"prompts": " \n"}, "prompt is empty"),
        ({"prompts": "a", "seed": "x"}, "field seed"),
        ({"prompts": "a", "guidance": "much"}, "field guidance"),
        ({"prompts": "a", "size": "big"}, "WIDTHxHEIGHT"),
        ({"prompts": "a\nb", "count": "501"}, "at most 1000"),
    ],
)
def test_a_wrong_wish_is_named(visitor: Visitor, known: OvamApplication, form: dict[str, str], words: str) -> None:
    visitor.app.extensions["ovam_generate"] = Studio(known)
    page = visitor.get(AT, scope="default/2")
    assert words in visitor.send(page, "/pages/generate", **form, status=400).text
    assert known.store.list_jobs() == []


def test_what_push_jobs_did_is_said(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, "brick", 8)
    store, where = application.store, {"connection": "default", "project": "2"}
    for payload, result in (
        (where, {"pushed": 3, "there": 2, "failed": 1, "pruned": 4, "left": 0}),
        ({**where, "tasks": ["1", "2"]}, {"pushed": 0, "there": 0, "failed": 0, "pruned": 0, "left": 5}),
        (where, {"postponed": "Corrections of this project wait to be learned first."}),
    ):
        store.add_job("push", payload)
        job = store.claim_job("w", ("push",))
        assert job is not None
        store.finish_job(job.id, state="done", result=result)
    running = store.add_job("push", where)
    assert store.claim_job("w", ("push",)) is not None
    store.update_job(running.id, progress=0.4, message="Task 17, 5 of 10")
    text = visitor.get("/pages/jobs").text
    assert "3 predicted and pushed, 2 up to date, 1 failed, 4 old predictions deleted" in text
    assert "2 tasks asked for in a batch" in text and "5 left to the next job" in text
    assert "wait to be learned first" in text and "Task 17, 5 of 10" in text and "40 %" in text
