"""Who may see the pages, and whose forms count."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from pages_helpers import PAGES, Visitor, active, learn

from ovam_labeler.application import OvamApplication
from ovam_labeler.pages import forgery
from ovam_labeler.pages.access import host_name

PASSWORD = "correct horse"


class NamedVisitor(Visitor):
    """A browser that gives a name and a password."""

    def __init__(self, application: OvamApplication, name: str = "ann", password: str = PASSWORD) -> None:
        super().__init__(application)
        self.name, self.password = name, password

    def headers(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{self.name}:{self.password}".encode()).decode()}


@pytest.fixture
def guarded(make_application: Callable[..., OvamApplication]) -> OvamApplication:
    return make_application(pages_password=PASSWORD)


@pytest.mark.parametrize("path", [*PAGES, "/pages/static/pages.css", "/pages/nothing"])
def test_without_a_password_only_this_machine_is_let_in(visitor: Visitor, path: str) -> None:
    for address in ("192.168.1.7", "8.8.8.8", "::ffff:10.0.0.1", ""):
        response = visitor.client.get(path, environ_overrides={"REMOTE_ADDR": address})
        assert response.status_code == 403 and "OVAM_PAGES_PASSWORD" in response.text
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert visitor.client.get(path, environ_overrides={"REMOTE_ADDR": address}).status_code != 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_without_a_password_nobody_comes_through_a_proxy(visitor: Visitor, header: str) -> None:
    assert visitor.client.get("/pages/", headers={header: "127.0.0.1"}).status_code == 403


def test_without_a_password_another_host_name_is_refused(visitor: Visitor) -> None:
    """A page elsewhere may have its own name resolve to 127.0.0.1 (DNS rebinding)."""
    for host in ("evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0"):
        response = visitor.client.get("/pages/", headers={"Host": host})
        assert response.status_code == 403, host
    for host in ("localhost:9090", "127.0.0.1:9090", "[::1]:9090", "LOCALHOST", "labels.localhost"):
        assert visitor.client.get("/pages/", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    ("host", "name"), [("a:1", "a"), ("A", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), ("[", "")]
)
def test_host_name(host: str, name: str) -> None:
    assert host_name(host) == name


def test_an_empty_password_opens_nothing(make_application: Callable[..., OvamApplication]) -> None:
    visitor = Visitor(make_application(pages_password=""))
    assert visitor.client.get("/pages/", environ_overrides={"REMOTE_ADDR": "10.1.1.1"}).status_code == 403
    given = {"Authorization": "Basic " + base64.b64encode(b"ann:").decode()}
    assert (
        visitor.client.get("/pages/", headers=given, environ_overrides={"REMOTE_ADDR": "10.1.1.1"}).status_code == 403
    )
    assert visitor.client.get("/pages/").status_code == 200


def test_with_a_password_it_is_asked_for(guarded: OvamApplication) -> None:
    visitor = Visitor(guarded)
    for path in (*PAGES, "/pages/static/pages.css"):
        response = visitor.raw(path)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert "No class has learned" not in response.text


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong"),
        ("ann", ""),
        ("", PASSWORD),
        ("ann", PASSWORD + " "),
        ("  ", PASSWORD),
        ("ann", "correct hörse"),
    ],
)
def test_a_wrong_password_or_no_name_is_refused(guarded: OvamApplication, name: str, password: str) -> None:
    assert NamedVisitor(guarded, name, password).raw("/pages/").status_code == 401


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"nocolon").decode()]
)
def test_a_broken_authorization_is_refused(guarded: OvamApplication, header: str) -> None:
    assert Visitor(guarded).client.get("/pages/", headers={"Authorization": header}).status_code == 401


def test_with_the_password_any_address_is_let_in_and_the_log_keeps_the_name(guarded: OvamApplication) -> None:
    learn(guarded, place=8)
    learn(guarded, place=30)
    visitor = NamedVisitor(guarded, "Zoë\tB.")
    assert (
        visitor.client.get(
            "/pages/",
            headers={**visitor.headers(), "Host": "labels.example"},
            environ_overrides={"REMOTE_ADDR": "10.1.1.1"},
        ).status_code
        == 200
    )
    page = visitor.get("/pages/token", scope="default/2", name="red")
    assert "you are Zoë B." in page.text
    visitor.send(page, "/pages/token", act="promote:1", reason="it was better")
    assert active(guarded) == 1
    newest = guarded.store.audit(1)[0]
    assert (newest["who"], newest["why"]) == ("Zoë B.", "it was better")


def test_a_password_in_the_log_never(guarded: OvamApplication, caplog: pytest.LogCaptureFixture) -> None:
    NamedVisitor(guarded, "ann", "wrong secret").raw("/pages/")
    assert "wrong secret" not in caplog.text and PASSWORD not in caplog.text


def _post(visitor: Visitor, fields: dict[str, str], **headers: str) -> int:
    return visitor.client.post("/pages/token", data=fields, headers=headers).status_code


def _fields(visitor: Visitor) -> dict[str, str]:
    page = visitor.get("/pages/token", scope="default/2", name="red")
    return {**page.hidden(), "act": "word", "reason": ""}


@pytest.fixture
def learned(application: OvamApplication) -> OvamApplication:
    learn(application)
    return application


def test_a_form_of_a_page_is_taken(visitor: Visitor, learned: OvamApplication) -> None:
    fields = _fields(visitor)
    assert _post(visitor, fields, Origin="http://localhost", **{"Sec-Fetch-Site": "same-origin"}) == 303
    assert active(learned) is None


def test_a_form_from_another_site_is_refused(visitor: Visitor, learned: OvamApplication) -> None:
    fields = _fields(visitor)
    for origin in ("https://evil.example", "null", "http://localhost:8080", "http://[", "", "http://localhost.evil"):
        assert _post(visitor, fields, Origin=origin) == 403, origin
    for site in ("cross-site", "same-site", "none"):
        assert _post(visitor, fields, **{"Sec-Fetch-Site": site}) == 403, site
    assert active(learned) == 1
    assert len(learned.store.audit(50)) == len([e for e in learned.store.audit(50) if e["who"] != "local"])


def test_a_form_without_the_right_token_is_refused(visitor: Visitor, learned: OvamApplication) -> None:
    fields = _fields(visitor)
    for token in ("", "0" * 64, fields[forgery.FIELD][:-1], "ü"):
        assert _post(visitor, {**fields, forgery.FIELD: token}) == 403
    assert _post(visitor, {k: v for k, v in fields.items() if k != forgery.FIELD}) == 403
    assert active(learned) == 1


def test_a_form_without_its_cookie_or_with_another_is_refused(visitor: Visitor, learned: OvamApplication) -> None:
    fields = _fields(visitor)
    stranger = Visitor(learned)
    assert _post(stranger, fields) == 403
    stranger.get("/pages/")  # a cookie of its own
    assert _post(stranger, fields) == 403
    visitor.client.set_cookie(forgery.COOKIE, "short", path="/pages")
    assert _post(visitor, fields) == 403
    assert active(learned) == 1


def test_a_token_of_one_user_is_none_of_another(guarded: OvamApplication) -> None:
    learn(guarded)
    ann = NamedVisitor(guarded, "ann")
    fields = _fields(ann)
    ann.name = "bob"
    assert _post(ann, fields, **ann.headers()) == 403


def test_the_cookie_is_for_this_site_only(visitor: Visitor) -> None:
    cookie = visitor.raw("/pages/").headers["Set-Cookie"]
    assert "SameSite=Strict" in cookie and "HttpOnly" in cookie and "Path=/pages" in cookie
    assert "Set-Cookie" not in visitor.raw("/pages/").headers


@pytest.mark.parametrize("path", ["/pages/token", "/pages/corrections", "/pages/jobs", "/pages/project"])
def test_every_form_is_guarded(visitor: Visitor, path: str) -> None:
    response = visitor.client.post(path, data={"scope": "default/2", "name": "red", "act": "word"})
    assert response.status_code == 403


@pytest.mark.parametrize("path", [*PAGES, "/pages/token", "/pages/project"])
def test_reading_changes_nothing_and_other_methods_are_refused(
    visitor: Visitor, learned: OvamApplication, path: str
) -> None:
    for method in ("put", "delete", "patch"):
        assert getattr(visitor.client, method)(path).status_code in (403, 405)
    before = learned.store.audit(100)
    visitor.client.get(f"{path}?scope=default/2&name=red&act=word&again=1&cancel=1&policy=auto")
    assert learned.store.audit(100) == before and active(learned) == 1


def test_a_huge_form_is_refused(visitor: Visitor, learned: OvamApplication) -> None:
    fields = {**_fields(visitor), "reason": "x" * 100_000}
    assert _post(visitor, fields) == 413
    assert active(learned) == 1
