"""Puts the pages under ``/pages/`` of the server's web application."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, g, make_response, render_template, request
from werkzeug.exceptions import HTTPException, NotFound

from ovam_labeler import __version__
from ovam_labeler.errors import OvamError
from ovam_labeler.pages import access, filters, forgery
from ovam_labeler.pages.routes import (
    corrections,
    generating,
    helping,
    jobs,
    journal,
    pictures,
    projects,
    registry,
    token,
)
from ovam_labeler.services import Application

log = logging.getLogger(__name__)

PREFIX = "/pages"

#: Largest form in bytes: a reason and some choices.
MAX_FORM_BYTES = 64 * 1024

#: Nothing but what this server sends itself; no inline script or style, no frame, no plugin.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": with that, browsers send a form's Origin as "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def register_pages(
    app: Flask, application: Application, *, state: Callable[[], Mapping[str, Any]] | None = None
) -> None:
    """Add the pages.

    Args:
        state: of the base model, ``{"state": ..., "message": ...}``, answered from memory.
    """
    pages = Blueprint("pages", __name__, url_prefix=PREFIX, template_folder="templates", static_folder="static")
    where = state or (lambda: {"state": "ready", "message": ""})
    filters.register(pages)
    for module in (registry, token, pictures, corrections, jobs, projects, generating, helping, journal):
        module.register(pages, application, where)

    @pages.before_request
    def let_in() -> None:
        request.max_content_length = MAX_FORM_BYTES
        g.user = access.user_of(request, application.settings)
        g.secret = forgery.secret_of(request)
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            forgery.check(request, g.user)

    @pages.context_processor
    def common() -> dict[str, Any]:
        user = g.get("user", "")
        return {
            "user": user,
            "form_field": forgery.FIELD,
            "form_token": forgery.token(g.secret, user) if user else "",
            "program": __version__,
            "model": application.settings.model,
            "model_state": where(),
        }

    @pages.after_request
    def finish(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        # Everything here is one project's business, and nothing of it may be shown when it is old.
        if not response.headers.get("Cache-Control"):
            response.headers["Cache-Control"] = "no-store"
        if g.get("user"):
            forgery.keep(response, request, g.secret, PREFIX)
        return response

    @pages.get("/<path:_unknown>")
    def unknown(_unknown: str) -> Response:
        raise NotFound

    @pages.errorhandler(OvamError)
    def known(error: OvamError) -> Response:
        log.warning("%s: %s", error.code, error)
        response = _page(error.status, str(error))
        if error.status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="OVAM Labeler pages", charset="UTF-8"'
        return response

    @pages.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        sentences = {
            404: "There is no such page.",
            405: "This address takes another kind of request.",
            413: f"The form is larger than {MAX_FORM_BYTES} bytes, the most allowed.",
        }
        status = error.code or 500
        return _page(status, sentences.get(status, error.description or error.name or "The request failed."))

    @pages.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        name = secrets.token_hex(4)
        log.error("Unexpected error %s", name, exc_info=error)
        return _page(500, f"Something failed that should not; the server's log has it under {name}.")

    app.register_blueprint(pages)
    app.extensions["ovam_pages"] = PREFIX


def _page(status: int, sentence: str) -> Response:
    titles = {401: "Password needed", 403: "Refused", 404: "Not found", 409: "It changed meanwhile", 413: "Too large"}
    title = titles.get(status, "This did not work")
    return make_response(render_template("pages/error.html", title=title, sentence=sentence), status)
