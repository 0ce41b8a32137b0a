"""Promote, roll back, archive, pause, policy: what the buttons do, and what the log and the model version say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pages_helpers import SCOPE, Page, Visitor, active, learn

from ovam_labeler.application import OvamApplication
from ovam_labeler.domain import Label
from ovam_labeler.options import project_options
from token_store.entities import Scope, ServedPrediction


@pytest.fixture
def learned(application: OvamApplication) -> OvamApplication:
    """'brick' with versions 1 and 2, of which 2 is used."""
    learn(application, "brick", 8)
    learn(application, "brick", 30)
    assert active(application, "brick") == 2
    return application


def page_of(visitor: Visitor, name: str = "brick") -> Page:
    return visitor.get("/pages/token", scope="default/2", name=name)


def model_version(application: OvamApplication) -> str:
    options = project_options(application.settings, application.store.get_project_options(SCOPE))
    return application.proposer.model_version([Label("brick"), Label("red")], SCOPE, options)


def test_promote_and_roll_back_move_what_is_used_and_the_model_version(
    visitor: Visitor, learned: OvamApplication
) -> None:
    with_two = model_version(learned)
    page = visitor.send(page_of(visitor), "/pages/token", act="promote:1", reason="  the second\nis worse ")
    assert active(learned, "brick") == 1
    assert "Version 1 is in use now." in page.text and "version 1 in use" in page.text
    newest = learned.store.audit(1)[0]
    assert (newest["who"], newest["why"]) == ("local", "the second is worse")
    with_one = model_version(learned)
    assert with_one != with_two

    page = visitor.send(page, "/pages/token", act="rollback", reason="")
    assert active(learned, "brick") == 2 and model_version(learned) == with_two
    assert "Taken back: version 2 is in use now." in page.text
    assert learned.store.audit(1)[0]["why"] == "no reason given"


def test_tasks_that_the_version_before_had_served_are_counted_and_predicted_again(
    visitor: Visitor, learned: OvamApplication
) -> None:
    second = learned.store.get_version(SCOPE, "brick", 2)
    served = [
        ServedPrediction(SCOPE, str(task), "m", {}, {"brick": 2}, datetime.now(UTC), {"brick": second.id})
        for task in (1, 2)
    ]
    other = ServedPrediction(SCOPE, "3", "m", {}, {"red": 1}, datetime.now(UTC), {"red": None})
    learned.store.put_served([*served, other])
    moved: list[Scope] = []
    visitor.app.extensions["ovam_moved"] = moved.append
    page = visitor.send(page_of(visitor), "/pages/token", act="promote:1")
    assert "2 tasks had masks of what was in use before" in page.text
    assert moved == [SCOPE]
    visitor.send(page, "/pages/token", act="archive:2")
    assert moved == [SCOPE]  # version 2 was not in use, so nothing is predicted again


def test_the_word_can_be_used_again(visitor: Visitor, learned: OvamApplication) -> None:
    page = visitor.send(page_of(visitor), "/pages/token", act="word", reason="photographs now")
    assert active(learned, "brick") is None and "the word is in use" in page.text
    visitor.send(page, "/pages/token", act="rollback")
    assert active(learned, "brick") == 2


def test_archive(visitor: Visitor, learned: OvamApplication) -> None:
    page = visitor.send(page_of(visitor), "/pages/token", act="archive:1", reason="not needed")
    assert "Version 1 is archived" in page.text and active(learned, "brick") == 2
    assert learned.store.get_version(SCOPE, "brick", 1).state == "archived"
    page = visitor.send(page, "/pages/token", act="archive:2")
    assert active(learned, "brick") is None and "the word is in use" in page.text
    visitor.send(page, "/pages/token", act="promote:2")
    assert active(learned, "brick") == 2 and learned.store.get_version(SCOPE, "brick", 2).state != "archived"


@pytest.mark.parametrize("act", ["promote:1", "rollback", "word"])
def test_a_page_that_is_out_of_date_changes_nothing(visitor: Visitor, learned: OvamApplication, act: str) -> None:
    old = page_of(visitor)
    visitor.send(page_of(visitor), "/pages/token", act="archive:2")
    page = visitor.send(old, "/pages/token", act=act, status=409)
    assert active(learned, "brick") is None
    assert len(page.all("div", role="alert")) == 1


def test_a_rollback_with_nothing_before_is_one_sentence(visitor: Visitor, learned: OvamApplication) -> None:
    page = page_of(visitor)
    for _ in range(2):  # to version 1, then to the word
        page = visitor.send(page, "/pages/token", act="rollback")
    assert active(learned, "brick") is None
    page = visitor.send(page, "/pages/token", act="rollback", status=409)
    assert len(page.all("div", role="alert")) == 1


@pytest.mark.parametrize(
    ("act", "status"),
    [("", 400), ("promote", 400), ("promote:", 400), ("promote:x", 400), ("promote:99", 404), ("archive:99", 404),
     ("delete:1", 400), ("promote:-1", 400), ("archive", 400)],
)  # fmt: skip
def test_a_button_that_does_not_exist(visitor: Visitor, learned: OvamApplication, act: str, status: int) -> None:
    before = learned.store.audit(100)
    visitor.send(page_of(visitor), "/pages/token", act=act, status=status)
    assert active(learned, "brick") == 2 and learned.store.audit(100) == before


def test_another_class_is_left_alone(visitor: Visitor, learned: OvamApplication) -> None:
    learn(learned, "red", 8)
    visitor.send(page_of(visitor), "/pages/token", act="promote:1")
    assert active(learned, "red") == 1
    assert [e for e in learned.store.audit(50, scope=SCOPE, class_name="red") if e["who"] == "local"] == []


def test_the_policy_of_a_project(visitor: Visitor, learned: OvamApplication) -> None:
    page = visitor.get("/pages/project", scope="default/2")
    chosen = [a["value"] for a in page.all("input", type="radio", name="policy") if "checked" in a]
    assert chosen == ["gate"]
    page = visitor.send(page, "/pages/project", act="settings", policy="manual", learning="on", reason="audit week")
    assert "Saved." in page.text
    assert [a["value"] for a in page.all("input", type="radio", name="policy") if "checked" in a] == ["manual"]
    assert learned.store.get_project_options(SCOPE)["policy"] == "manual"
    assert learned.store.audit(1)[0]["who"] == "local" and learned.store.audit(1)[0]["why"] == "audit week"
    visitor.send(page, "/pages/project", act="settings", policy="auto")
    assert learned.store.get_project_options(SCOPE)["learning"] is False
    assert "learning is off" in visitor.get("/pages/projects").text
    for policy in ("", "sometimes"):
        visitor.send(page, "/pages/project", act="settings", policy=policy, status=400)


def test_a_version_that_waits_for_a_decision_is_promoted_by_its_own_button(
    visitor: Visitor, learned: OvamApplication
) -> None:
    page = visitor.get("/pages/project", scope="default/2")
    visitor.send(page, "/pages/project", act="settings", policy="manual", learning="on")
    learn(learned, "brick", 40)
    assert learned.store.get_token(SCOPE, "brick").aliases == {"active": 2, "candidate": 3}
    assert "version 3 waits for you" in visitor.get("/pages/", show="candidate").text
    page = page_of(visitor)
    (button,) = page.all("button", **{"class": "primary"})
    assert button["value"] == "promote:3" and "Use version 3, which waits" in page.text
    visitor.send(page, "/pages/token", act="promote:3")
    assert learned.store.get_token(SCOPE, "brick").aliases == {"active": 3}
    assert "No class matches" in visitor.get("/pages/", show="candidate").text


def test_pausing_a_class(visitor: Visitor, learned: OvamApplication) -> None:
    page = visitor.get("/pages/project", scope="default/2")
    page = visitor.send(page, "/pages/project", act="pause:brick", reason="guide is being rewritten")
    assert learned.store.paused_classes(SCOPE) == ["brick"]
    assert "'brick' learns no more" in page.text
    assert "learning paused" in visitor.get("/pages/").text and "learning paused" in page_of(visitor).text
    assert learned.store.audit(1)[0]["why"] == "guide is being rewritten"
    page = visitor.send(page, "/pages/project", act="resume:brick")
    assert learned.store.paused_classes(SCOPE) == []
    for act in ("pause:", "stop:brick", ""):
        visitor.send(page, "/pages/project", act=act, status=400)


def test_the_log_is_shown_and_filtered(visitor: Visitor, learned: OvamApplication) -> None:
    visitor.send(page_of(visitor), "/pages/token", act="promote:1", reason="a reason to remember")
    for query in ({}, {"scope": "default/2"}, {"scope": "default/2", "name": "brick"}):
        assert "a reason to remember" in visitor.get("/pages/log", **query).text
    assert "a reason to remember" not in visitor.get("/pages/log", scope="default/9").text
    assert "a reason to remember" not in visitor.get("/pages/log", scope="default/2", name="red").text
    assert "a reason to remember" in page_of(visitor).text


def test_the_log_turns_its_pages(visitor: Visitor, learned: OvamApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of(visitor)
    for number in (1, 2, 1):
        page = visitor.send(page, "/pages/token", act=f"promote:{number}", reason=f"reason {number}")
    monkeypatch.setattr("ovam_labeler.pages.routes.journal.PAGE", 2)
    first = visitor.get("/pages/log")
    (older,) = [str(a["href"]) for a in first.all("a") if "before=" in str(a.get("href"))]
    rows = len(visitor.get(older).all("tr"))
    assert len(first.all("tr")) == 3 and rows >= 2
