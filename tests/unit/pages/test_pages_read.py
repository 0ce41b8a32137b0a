"""Every page, empty and with data: it answers, escapes, and needs nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pages_helpers import HOSTILE, PAGES, SCOPE, Page, Visitor, correction, learn

from ovam_labeler.application import OvamApplication
from token_store.entities import Scope


def harmless(page: Page) -> None:
    """No inline script or style, and nothing loaded from elsewhere."""
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style", (tag, name)
            if name in ("src", "srcset", "action", "hx-get", "hx-post", "formaction") or tag == "link":
                assert not str(value).startswith(("http:", "https:", "//", "data:", "javascript:")), (tag, name, value)
        if tag in ("script", "iframe", "object", "embed", "base", "style"):
            assert tag == "script" and str(attributes.get("src")).startswith("/pages/static/"), tag


@pytest.mark.parametrize("path", PAGES)
def test_a_page_over_an_empty_store_says_what_to_do_next(visitor: Visitor, path: str) -> None:
    page = visitor.get(path)
    harmless(page)
    assert len(page.all("h1")) == 1 and len(page.all("main")) == 1
    (notice,) = [a for a in page.all("div") if "notice" in str(a.get("class"))]
    assert notice and re.search(r"(No .*|Nothing has been logged) yet\.", page.text)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_with_data(visitor: Visitor, application: OvamApplication, path: str) -> None:
    learn(application)
    correction(application)
    page = visitor.get(path)
    harmless(page)
    assert "default/2" in page.text
    assert page.all("title") and page.all("html", lang="en")


def test_the_list_says_what_is_used_and_how_good_it_is(visitor: Visitor, application: OvamApplication) -> None:
    for place in (8, 30):
        learn(application, "lipstick", place)
    learn(application, "brick")
    page = visitor.get("/pages/")
    held_out = application.store.get_version(SCOPE, "lipstick", 2).metrics["held_out"]
    token, word = (sum(held_out[k]) / 2 for k in ("token", "word"))
    assert f"{token:.2f} against {word:.2f} of the word" in page.text
    assert "on 2 corrections held back" in page.text
    assert "no evidence yet" in page.text  # of the class with one correction
    assert len(page.all("svg", role="img")) == 2  # a loss curve a class


def test_search_and_filters(visitor: Visitor, application: OvamApplication) -> None:
    for place in (8, 30):
        learn(application, "lipstick", place)
    learn(application, "brick")
    for query, found in (
        ({"q": "LIP"}, {"lipstick"}),
        ({"q": "nothing like it"}, set()),
        ({"show": "proven"}, {"lipstick"}),
        ({"show": "unproven"}, {"brick"}),
        ({"show": "word"}, set()),
        ({"scope": "default/3"}, set()),
        ({"scope": "default/2"}, {"lipstick", "brick"}),
        ({"order": "name"}, {"lipstick", "brick"}),
    ):
        page = visitor.get("/pages/", **query)
        links = [str(a["href"]) for a in page.all("a") if str(a.get("href")).startswith("/pages/token?")]
        assert {link.rpartition("name=")[2] for link in links} == found, query
        assert ("No class matches" in page.text) == (not found)


def test_more_classes_than_one_page_holds(
    visitor: Visitor, application: OvamApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovam_labeler.pages.routes.registry.PAGE", 2)
    for name in ("a", "b", "c"):
        learn(application, name)
    page = visitor.get("/pages/", order="name")
    (more,) = [a for a in page.all("a") if "after=" in str(a.get("href"))]
    rest = visitor.get(str(more["href"]))
    names = [
        str(a["href"]).rpartition("name=")[2]
        for p in (page, rest)
        for a in p.all("a")
        if "/token?" in str(a.get("href"))
    ]
    assert names == ["a", "b", "c"]


def test_a_class_page_shows_its_history(visitor: Visitor, application: OvamApplication) -> None:
    for place in (8, 30, 40):
        learn(application, "brick", place)
    page = visitor.get("/pages/token", scope="default/2", name="brick")
    harmless(page)
    assert "version 3 in use" in page.text and "version 1" in page.text
    assert "Loss of version 3" in page.text
    assert "by ann" in page.text
    older = visitor.get("/pages/token", scope="default/2", name="brick", version=1)
    assert "Loss of version 1" in older.text


def test_hostile_text_is_shown_as_text(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, HOSTILE)
    correction(application, labels=(HOSTILE,), annotator=HOSTILE, task_id=HOSTILE)
    for path in PAGES:
        harmless(visitor.get(path))
    for query in ({}, {"done": "promote", "number": 1}):
        page = visitor.get("/pages/token", scope="default/2", name=HOSTILE, **query)
        harmless(page)
        assert HOSTILE in page.text
        assert not page.all("img")
    harmless(visitor.get("/pages/", q=HOSTILE))
    harmless(visitor.get("/pages/project", scope="default/2", done="pause", name=HOSTILE))
    assert HOSTILE in visitor.get("/pages/corrections").text


@pytest.mark.parametrize("name", ["a/b", "..", "50 %", "tür & tor", "#1?x=y", "木", " spaced  "])
def test_any_class_name_has_a_page(visitor: Visitor, application: OvamApplication, name: str) -> None:
    learn(application, name)
    page = visitor.get("/pages/")
    (link,) = [str(a["href"]) for a in page.all("a") if "/pages/token?" in str(a.get("href"))]
    assert "version 1 in use" in visitor.get(link).text


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/pages/nothing", {}, 404),
        ("/pages/static/../app.py", {}, 404),
        ("/pages/static/%2e%2e/app.py", {}, 404),
        ("/pages/static//etc/passwd", {}, 404),
        ("/pages/token", {}, 400),
        ("/pages/token", {"scope": "default/2"}, 400),
        ("/pages/token", {"scope": "default/2", "name": "unknown"}, 404),
        ("/pages/token", {"scope": "nonsense", "name": "red"}, 400),
        ("/pages/token", {"scope": "default/2", "name": "red", "version": "9"}, 404),
        ("/pages/token", {"scope": "default/2", "name": "red", "version": "-1"}, 400),
        ("/pages/token", {"scope": "default/2", "name": "red", "version": "9" * 15}, 404),
        ("/pages/token", {"scope": "default/2", "name": "red", "done": "<b>"}, 400),
        ("/pages/", {"show": "everything"}, 400),
        ("/pages/", {"after": "made up"}, 400),
        ("/pages/", {"scope": "../etc/2"}, 400),
        ("/pages/corrections", {"state": "odd"}, 400),
        ("/pages/jobs", {"state": "odd"}, 400),
        ("/pages/project", {"scope": "default/99"}, 404),
        ("/pages/log", {"before": "x"}, 400),
        ("/pages/picture", {"scope": "default/2", "name": "red", "correction": "77", "show": "truth"}, 404),
        ("/pages/pictures", {"scope": "default/2", "name": "red", "version": "77"}, 404),
    ],
)
def test_what_is_not_there_is_one_sentence(
    visitor: Visitor, application: OvamApplication, path: str, query: dict[str, Any], status: int
) -> None:
    learn(application)
    page = visitor.get(path, status, **query)
    harmless(page)
    (alert,) = page.all("div", role="alert")
    assert alert and "Traceback" not in page.text


def test_an_unexpected_failure_tells_nothing_but_a_name_of_the_log(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(visitor.application.store), "count_tokens", fail)
    page = visitor.get("/pages/", 500)
    assert "secret" not in page.text and "the server's log has it under" in page.text


def test_the_headers_forbid_what_the_pages_do_not_need(visitor: Visitor) -> None:
    for path in (*PAGES, "/pages/nothing", "/pages/static/pages.css"):
        headers = visitor.raw(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
    assert visitor.raw("/pages/").headers["Cache-Control"] == "no-store"
    assert visitor.raw("/pages/static/pages.css").mimetype == "text/css"
    assert visitor.raw("/pages/static/icon.svg").mimetype == "image/svg+xml"
    assert "javascript" in visitor.raw("/pages/static/htmx-2.0.11.min.js").mimetype


def test_a_browser_is_sent_to_the_pages_and_a_program_gets_json(application: OvamApplication) -> None:
    from ovam_labeler.pages.app import register_pages
    from ovam_labeler.tools.label_studio.app import create_app

    without = create_app(application)
    assert without.test_client().get("/", headers={"Accept": "text/html"}).get_json()["name"] == "ovam-labeler"
    app = create_app(application)
    register_pages(app, application)
    client = app.test_client()
    browser = client.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert browser.status_code == 302 and browser.headers["Location"].endswith("/pages/")
    for accept in ("*/*", "application/json", ""):
        assert client.get("/", headers={"Accept": accept}).get_json()["name"] == "ovam-labeler"


def test_the_model_s_state_is_shown(application: OvamApplication) -> None:
    assert "loading" in Visitor(application, state="loading", message="").get("/pages/").text
    failed = Visitor(application, state="failed", message="No such folder.").get("/pages/")
    assert any(a.get("title") == "No such folder." for a in failed.all("span"))


def test_a_global_token_has_a_page(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, "red", scope=Scope.everywhere())
    page = visitor.get("/pages/token", scope="global", name="red")
    assert "version 1 in use" in page.text
