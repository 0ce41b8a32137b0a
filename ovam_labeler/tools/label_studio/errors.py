"""The HTTP edge's one translator: every error becomes ``{"error": {"code", "message"}}``, never a traceback."""

from __future__ import annotations

import logging
import secrets

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ovam_labeler.errors import OvamError

log = logging.getLogger(__name__)


def register_errors(app: Flask) -> None:
    """Install the translator."""

    app.register_error_handler(Exception, answer_of)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        if status == 413:
            limit = app.config["MAX_CONTENT_LENGTH"]
            return _answer(413, "too_large", f"The request is larger than {limit} bytes, the most allowed.")
        name, sentence = (error.name or "error").lower().replace(" ", "_"), error.description or error.name or ""
        response = _answer(status, name, sentence)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response


def answer_of(error: Exception) -> Response:
    """An error's answer; what is none of ours is told by a name under which the log has it."""
    if isinstance(error, OvamError):
        log.warning("%s: %s", error.code, error)
        return _answer(error.status, error.code, str(error))
    name = secrets.token_hex(4)
    log.error("Unexpected error %s", name, exc_info=error)
    return _answer(500, "internal", f"Something failed that should not; the server's log has it under {name}.")


def _answer(status: int, code: str, message: str) -> Response:
    response = jsonify({"error": {"code": code, "message": message}})
    # Label Studio shows a backend's HTTP reason and nothing of its body, so the sentence goes there as well.
    reason = " ".join(message.split()).encode("ascii", "replace").decode("ascii")
    response.status = f"{status} {reason[:300] or code}"
    return response
