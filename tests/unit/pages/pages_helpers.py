"""What the tests of the pages share: a visitor who reads pages and sends their forms, and things to look at."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import numpy as np
from colour_model import COLOURS, box, scene
from flask import Flask
from werkzeug.test import TestResponse

from ovam_labeler.application import OvamApplication
from ovam_labeler.domain import LearnResult
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.pages.app import register_pages
from ovam_labeler.tools.label_studio.errors import register_errors
from token_store.entities import Correction, NewCorrection, Scope

SCOPE = Scope("default", "2")

#: Every page that can be asked for without knowing anything.
PAGES = ("/pages/", "/pages/corrections", "/pages/helping", "/pages/jobs", "/pages/projects", "/pages/log")

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>/../../etc/passwd"


class Page(HTMLParser):
    """A page's tags as (name, attributes), and its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in attributes.items())]

    def hidden(self) -> dict[str, str]:
        """Hidden fields of the forms; those of one name have one value on every page of ours."""
        return {str(a["name"]): a.get("value") or "" for a in self.all("input", type="hidden")}


class Visitor:
    """A browser on this machine, without JavaScript."""

    def __init__(self, application: OvamApplication, **state: str) -> None:
        self.application = application
        self.app = Flask("test", static_folder=None)
        register_errors(self.app)
        register_pages(self.app, application, state=(lambda: state) if state else None)
        self.client = self.app.test_client()

    def get(self, path: str, status: int = 200, **query: Any) -> Page:
        response = self.raw(path, **query)
        assert response.status_code == status, f"{response.status} {response.text}"
        return Page(response.text)

    def raw(self, path: str, **query: Any) -> TestResponse:
        given = {k: v for k, v in query.items() if v is not None}
        return self.client.get(f"{path}?{urlencode(given)}" if given else path, headers=self.headers())

    def headers(self) -> dict[str, str]:
        return {}

    def send(self, page: Page, path: str, status: int = 303, **fields: Any) -> Page:
        """Send a form of a page with its hidden fields; follows the redirect."""
        response = self.client.post(path, data={**page.hidden(), **fields}, headers=self.headers())
        assert response.status_code == status, f"{response.status} {response.text}"
        if status != 303:
            return Page(response.text)
        return Page(self.client.get(response.headers["Location"], headers=self.headers()).text)


def learn(
    application: OvamApplication, name: str = "red", place: int = 8, scope: Scope = SCOPE, colour: str = "red"
) -> LearnResult:
    """Teach a class by a coloured box on a picture of its own; each ``place`` (pixels from the left) is another picture."""
    pixels = scene((COLOURS[colour], (16, place, 32, 32)), ((200, 200, 40), (4, 70, 12, 12)))
    image = load_image(encode_png(pixels))
    return application.learner.learn_mask(image, box(16, place, 32, 32), name, scope, created_by="ann")


def correction(application: OvamApplication, number: int = 1, scope: Scope = SCOPE, **changes: Any) -> Correction:
    """A correction that waits with its job, as a webhook leaves it; its image is nowhere."""
    new = {
        "scope": scope,
        "annotation_id": str(number),
        "updated_at": "2026-11-24T10:00:00Z",
        "task_id": str(100 + number),
        "image_ref": "/data/gone.png",
        "payload": {"tool": "direct", "image_sha256": "0" * 64},
        "labels": ("red",),
        "annotator": "bea",
        **changes,
    }
    stored, _, _ = application.store.add_correction(NewCorrection(**new))
    return stored


def active(application: OvamApplication, name: str = "red", scope: Scope = SCOPE) -> int | None:
    return application.store.get_token(scope, name).aliases.get("active")


def mask_of(picture: np.ndarray) -> np.ndarray:
    """Where a picture of the pages is tinted pink."""
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return (red - green > 60) & (blue - green > 20)
