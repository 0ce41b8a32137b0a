"""How long Label Studio takes to show a task: in Chromium where playwright finds one, else the same requests by HTTP.

A load is counted from the navigation to the last answer the page waited for (or its load event, whichever is later), as
the browser's own clock says; what a browser keeps from the visit before stays in its cache, as for an annotator.  By HTTP
the page's files and API calls are fetched over six connections, and nothing is parsed or drawn, so it is the shorter time.
"""

from __future__ import annotations

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from ovam_labeler.demo.label_studio_process import LabelStudio

_TIMING = """() => Math.max(
    performance.getEntriesByType('navigation')[0].loadEventEnd,
    ...performance.getEntriesByType('resource').map(entry => entry.responseEnd)) / 1000"""

#: What the data manager asks for when it opens a task.
_CALLS = (
    "/api/current-user/whoami",
    "/api/dm/project?project={project}",
    "/api/dm/columns?project={project}",
    "/api/dm/views?project={project}",
    "/api/dm/actions?project={project}",
    "/api/tasks?page=1&page_size=30&project={project}",
    "/api/tasks/{task}?project={project}",
    "/api/ml?project={project}",
)


class PageLoads:
    """Loads pages of one signed-in user.  Use as a context manager.

    Attributes:
        by: ``"chromium"`` or ``"http"``.
    """

    def __init__(self, studio: LabelStudio, project: int) -> None:
        self._studio = studio
        self._project = project
        self._playwright: Any = None
        self._browser: Any = None
        self._page: Any = None
        self._session = requests.Session()
        self.by = "http"

    def __enter__(self) -> PageLoads:
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            sync_playwright = None
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if sync_playwright is not None and chromium is not None:
            self.by = "chromium"
            self._playwright = sync_playwright().start()
            self._browser = self._playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            self._page = self._browser.new_page()
            self._page.goto(f"{self._studio.url}/user/login/")
            self._page.fill("input[name=email]", self._studio.username)
            self._page.fill("input[name=password]", self._studio.password)
            self._page.click("button[type=submit]")
            self._page.wait_for_load_state("networkidle")
        else:
            page = self._session.get(f"{self._studio.url}/user/login/", timeout=60).text
            token = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', page)
            form = {"email": self._studio.username, "password": self._studio.password}
            form |= {"csrfmiddlewaretoken": token.group(1) if token else ""}
            headers = {"Referer": self._studio.url}
            self._session.post(f"{self._studio.url}/user/login/", data=form, headers=headers, timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        if self._browser is not None:
            self._browser.close()
            self._playwright.stop()
        self._session.close()

    def load(self, task: int) -> float:
        """Seconds to open one task of the project."""
        url = f"{self._studio.url}/projects/{self._project}/data?task={task}"
        if self._page is None:
            return self._by_http(url, task)
        self._page.goto(url, wait_until="networkidle", timeout=120_000)
        return float(self._page.evaluate(_TIMING))

    def _by_http(self, url: str, task: int) -> float:
        begin = time.perf_counter()
        answer = self._session.get(url, timeout=120)
        if "/user/login" in answer.url or not answer.ok:
            raise RuntimeError(f"Label Studio did not show {url} (HTTP {answer.status_code} at {answer.url}).")
        calls = [call.format(project=self._project, task=task) for call in _CALLS]
        with ThreadPoolExecutor(6) as pool:
            for done in pool.map(lambda path: self._session.get(self._studio.url + path, timeout=120), calls):
                if not done.ok:
                    raise RuntimeError(f"Label Studio answered {done.status_code} to {done.url}.")
        return time.perf_counter() - begin
