"""The pages in a real Chromium, against the real server."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_helpers import SCOPE, Site, names
from PIL import Image
from playwright.sync_api import Page, expect
from server_process import wait_for

OpenPage = Callable[..., Page]

SECONDS = 60

#: Largest screenshot kept in docs, in bytes.
LARGEST = 200_000


def token_path(name: str, **query: object) -> str:
    return "/pages/token?" + urlencode({"scope": "default/2", "name": name, **query})


def paths() -> dict[str, str]:
    """Every page, by the name of its screenshot."""
    first = names()[1]
    return {
        "classes": "/pages/",
        "class": token_path(first),
        "class_after": token_path(first, done="promote", number=1),
        "pictures": "/pages/pictures?" + urlencode({"scope": "default/2", "name": first, "version": 2}),
        "corrections": "/pages/corrections",
        "jobs": "/pages/jobs",
        "projects": "/pages/projects",
        "project": "/pages/project?scope=default%2F2",
        "log": "/pages/log",
        "no_match": "/pages/?q=nothing+like+it",
        "not_found": "/pages/nothing",
    }


def settled(page: Page, path: str) -> None:
    """Go there, and wait for the pictures that come afterwards."""
    page.goto(path)
    if "/token?" in path:
        expect(page.locator("#strips")).to_be_visible()
    for image in page.locator("main img").all():
        image.scroll_into_view_if_needed()
    # Asked from outside: the pages' own policy forbids the evaluation that wait_for_function does inside.
    while not page.evaluate("[...document.querySelectorAll('main img')].every(i => i.complete && i.naturalWidth)"):
        page.wait_for_timeout(50)
    page.evaluate("scrollTo(0, 0)")


def test_screenshots(open_page: OpenPage, tmp_path: Path) -> None:
    """First, before a test changes anything.  Kept in docs with ``OVAM_SCREENSHOTS=docs/images``; see docs/pages.md."""
    folder = Path(os.environ.get("OVAM_SCREENSHOTS") or tmp_path)
    shots = [(name, "light", 1200) for name in ("classes", "class", "corrections", "project")]
    shots += [("class", "dark", 1200), ("classes", "light", 360)]
    for name, scheme, width in shots:
        page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800})
        settled(page, paths()[name])
        kind = "_narrow" if width == 360 else "_dark" if scheme == "dark" else ""
        target = folder / f"pages_{name}{kind}.webp"
        with Image.open(io.BytesIO(page.screenshot(full_page=True))) as image:
            image.convert("RGB").save(target, quality=80, method=6)
        assert 5_000 < target.stat().st_size < LARGEST, target
        page.close()


def test_promote_and_roll_back(site: Site, open_page: OpenPage) -> None:
    name = names()[1]
    used, before, masks = site.active(name), site.model_version(), site.masks()
    assert masks
    store = site.store()
    other = next(v.number for v in store.list_versions(SCOPE, name) if v.number != used)
    page = open_page()
    page.goto("/pages/")
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_label("Reason, for the log").fill("looked at twenty pictures")
    page.get_by_role("button", name=f"Use version {other}", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text(f"Version {other} is in use now.")
    expect(page.get_by_role("status")).to_be_focused()
    assert site.active(name) == other
    # /setup answers from memory and may be a moment late on a busy machine.
    wait_for(lambda: site.model_version() != before, "another model version", SECONDS)
    assert site.masks() != masks
    newest = store.audit(1)[0]
    assert (newest["who"], newest["why"]) == ("local", "looked at twenty pictures")

    page.get_by_role("button", name="Roll back the last change").click()
    expect(page.get_by_role("status")).to_contain_text("Taken back")
    assert site.active(name) == used
    wait_for(lambda: site.model_version() == before, "the model version of before", SECONDS)
    assert site.masks() == masks
    expect(page.get_by_role("row").filter(has_text="looked at twenty pictures")).to_be_visible()
    store.close()


def test_archive_and_the_word(site: Site, open_page: OpenPage) -> None:
    name = names()[0]
    before = site.model_version()
    page = open_page()
    page.goto(token_path(name))
    page.get_by_role("button", name="Archive version 1").click()
    expect(page.get_by_role("status")).to_contain_text("Version 1 is archived")
    assert site.active(name) is None
    wait_for(lambda: site.model_version() != before, "another model version", SECONDS)
    page.get_by_role("button", name="Use version 1", exact=True).click()
    assert site.active(name) == 1
    wait_for(lambda: site.model_version() == before, "the model version of before", SECONDS)


def test_two_tabs_the_older_changes_nothing(site: Site, open_page: OpenPage) -> None:
    name = names()[1]
    first, second = open_page(), open_page()
    first.goto(token_path(name))
    second.goto(token_path(name))
    first.get_by_role("button", name="Use the word").click()
    expect(first.get_by_role("status")).to_contain_text("The word is in use now.")
    # Chromium says on the console that the answer was a 409; that is what is wanted here.
    answer = second.request.post(
        "/pages/token",
        form={
            **{i.get_attribute("name") or "": i.input_value() for i in second.locator("input[type=hidden]").all()},
            "act": "rollback",
        },
    )
    assert answer.status == 409 and "nothing was changed" in answer.text()
    assert site.active(name) is None


def test_keyboard_alone_is_enough(site: Site, open_page: OpenPage) -> None:
    name = names()[1]
    used = site.active(name)
    page = open_page()
    page.goto("/pages/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    _tab_to(page, f"a:text-is('{name}')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pages/token?**")
    _tab_to(page, "#reason")
    page.keyboard.type("by keyboard")
    _tab_to(page, "button[value=rollback]")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # one sees where one is
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_be_focused()
    assert site.active(name) != used


def test_without_javascript(site: Site, open_page: OpenPage) -> None:
    second, first = names()[:2]
    page = open_page(java_script_enabled=False)
    page.goto("/pages/")
    page.get_by_label("Class name contains").fill(second)
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.goto(token_path(first, version=2))
    page.get_by_role("link", name="Show the masks of the word").click()
    assert page.locator("main img").count() >= 6
    page.goto(token_path(first))
    used = site.active(first)
    page.get_by_role("button", name="Roll back the last change").click()
    assert site.active(first) != used
    page.goto("/pages/project?scope=default%2F2")
    page.get_by_label("Ask me").check()
    page.get_by_role("button", name="Save learning").click()
    expect(page.get_by_role("status")).to_contain_text("Saved.")
    page.get_by_role("button", name=f"Pause {first}", exact=True).click()
    store = site.store()
    assert store.get_project_options(SCOPE)["policy"] == "manual" and store.paused_classes(SCOPE) == [first]
    store.close()


def test_search_narrows_the_list_while_typing(open_page: OpenPage) -> None:
    page = open_page()
    page.goto("/pages/")
    page.evaluate("window.same = true")
    page.get_by_label("Class name contains").type(names()[1][:5])
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.evaluate("window.same") and "q=" in page.url  # the same document, with an address to come back to
    page.get_by_label("Class name contains").fill("nothing like it")
    expect(page.get_by_role("status")).to_contain_text("No class matches")


def test_a_failed_correction_is_tried_again(site: Site, open_page: OpenPage) -> None:
    page = open_page()
    page.goto("/pages/corrections?state=failed")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("image")
    row.get_by_role("button").click()
    page.goto("/pages/jobs")
    # It fails once more, for the same reason; the page follows by itself.
    expect(page.locator("tbody tr").first.locator(".chip")).to_have_text("failed")
    page.get_by_role("button", name="Cancel").click()
    store = site.store()
    assert store.list_jobs(states=("queued", "running")) == []
    store.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360)])
def test_axe_finds_nothing_and_nothing_is_cut_off(open_page: OpenPage, scheme: str, width: int) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    axe = Axe()
    for name, path in paths().items():
        if name == "not_found":  # the console says 404, as it should
            continue
        settled(page, path)
        found = axe.run(page)
        assert found.violations_count == 0, f"{path}\n{found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.context.clear_cookies()


def _tab_to(page: Page, selector: str, most: int = 80) -> None:
    """Press Tab until the element has the focus."""
    wanted = page.locator(selector).first
    for _ in range(most):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{selector} is not reached by Tab")
