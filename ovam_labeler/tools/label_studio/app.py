"""The Flask application Label Studio talks to: the bare routes, and the same under ``/c/<connection>``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.errors import register_errors
from ovam_labeler.tools.label_studio.joined import MAX_REQUEST_BYTES, join
from ovam_labeler.tools.label_studio.routes import openapi, predictions, setup, status, webhook

#: Predictions made or waited for at once; further ones are told to come again.  Below the server's threads, so that
#: /health and /setup always find one free.
MAX_PREDICTING = 24


def create_app(application: Application, *, state: Callable[[], Mapping[str, Any]] | None = None) -> Flask:
    """The WSGI application over joined services.

    Args:
        application: with this tool among its decoders, else a tool of its own is made from its settings.
        state: of the base model, ``{"state": ..., "message": ...}``, answered from memory.
    """
    services = join(application)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    register_errors(app)
    # What is in use may also be changed by hand, on the pages of this server.
    app.extensions["ovam_moved"] = services.pushes.later
    app.extensions["ovam_generate"] = services.generator
    app.extensions["ovam_reconciler"] = services.reconciler
    where = state or (lambda: {"state": "ready", "message": ""})
    app.register_blueprint(status.blueprint(application, where))
    app.register_blueprint(openapi.blueprint())
    for prefix, name in (("", "default"), ("/c/<connection>", "connection")):
        app.register_blueprint(setup.blueprint(name, services.setup), url_prefix=prefix or None)
        app.register_blueprint(predictions.blueprint(name, services.predict, MAX_PREDICTING), url_prefix=prefix or None)
        app.register_blueprint(
            webhook.blueprint(name, services.tool.connections, services.events), url_prefix=prefix or None
        )
    return app
