"""``/``: what this server is and does; a browser is sent to the pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from ovam_labeler import __version__
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors

#: Most jobs of a state that are counted.
COUNTED = 1000


def blueprint(application: Application, state: Callable[[], Mapping[str, Any]]) -> Blueprint:
    routes = Blueprint("status", __name__)

    @routes.get("/")
    def index() -> Response | AnyResponse:
        pages = current_app.extensions.get("ovam_pages")
        if pages and request.accept_mimetypes.quality("text/html") > request.accept_mimetypes.quality(
            "application/json"
        ):
            return redirect(f"{pages}/")
        with translate_errors():
            jobs = {
                name: len(application.store.list_jobs(states=(name,), limit=COUNTED))
                for name in ("queued", "running", "failed")
            }
        return jsonify(
            {
                "name": "ovam-labeler",
                "version": __version__,
                "model": application.settings.model,
                **state(),
                "jobs": jobs,
                "label_studio": application.settings.label_studio_url,
            }
        )

    return routes
