"""A real Chromium, and a real server over a store in which real corrections were learned with the embedded model.

The suite of the real Label Studio has a server of its own (test_label_studio_browser.py)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from browser_helpers import Site, seed
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from server_process import ServerProcess, wait_for

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Patience with a machine that does much else.
SECONDS = 60

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of the machine; ``.ci/run`` installs it and sets OVAM_REQUIRE_BROWSER, so that nothing is left out there."""
    path = os.environ.get("OVAM_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        sentence = (
            "no Chromium on this machine; run `make install-chromium` as root on Debian, or name one in OVAM_CHROMIUM"
        )
        if os.environ.get("OVAM_REQUIRE_BROWSER"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    with sync_playwright() as playwright:
        expect.set_options(timeout=SECONDS * 1000)
        launched = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which three classes were learned, one correction failed and one waits."""
    folder = tmp_path_factory.mktemp("seeded")
    with ServerProcess(folder / "state", folder / "server.log") as server:
        seed(server)
    return folder / "state"


@pytest.fixture(scope="session")
def server(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(seeded, folder / "state")
    process = ServerProcess(folder / "state", folder / "server.log").start()
    wait_for(lambda: process.status()["state"] == "ready", "the base model")
    try:
        yield Site(process, folder / "state" / "ovam.sqlite3")
    finally:
        process.kill()  # a graceful end would wait for the browser's idle connections
    assert "Traceback" not in process.text()


@pytest.fixture
def site(server: Site) -> Site:
    """The server as the tests that change something find it: each class's newest version in use."""
    server.reset()
    return server


@pytest.fixture
def open_page(browser: Browser, server: Site) -> Iterator[Callable[..., Page]]:
    """Opens pages in a fresh profile; afterwards nothing was asked of another host and nothing was said on the console."""
    contexts: list[BrowserContext] = []
    asked: list[str] = []
    said: list[str] = []

    def make(**options: object) -> Page:
        context = browser.new_context(base_url=server.url, **options)  # type: ignore[arg-type]
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        context.on("weberror", lambda error: said.append(str(error.error)))
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.set_default_timeout(SECONDS * 1000)
        return page

    yield make
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(f"{server.url}/")] == []
    assert said == []
