"""The Flask application Label Studio talks to: the bare routes, and the same under ``/c/<connection>``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.corrections import TOOL
from ovam_labeler.tools.label_studio.errors import register_errors
from ovam_labeler.tools.label_studio.event_service import EventService
from ovam_labeler.tools.label_studio.measuring import Measurer
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.push import PUSH, Pusher
from ovam_labeler.tools.label_studio.reconcile import Reconciler
from ovam_labeler.tools.label_studio.routes import predictions, setup, status, webhook
from ovam_labeler.tools.label_studio.tool import LabelStudioTool

log = logging.getLogger(__name__)

#: Largest request body in bytes: a batch carries the old predictions of every task with their full RLE.
MAX_REQUEST_BYTES = 128 * 1024 * 1024

#: Predictions made or waited for at once; further ones are told to come again.  Below the server's threads, so that
#: /health and /setup always find one free.
MAX_PREDICTING = 24


def create_app(application: Application, *, state: Callable[[], Mapping[str, Any]] | None = None) -> Flask:
    """The WSGI application over joined services.

    Args:
        application: with this tool among its decoders, else a tool of its own is made from its settings.
        state: of the base model, ``{"state": ..., "message": ...}``, answered from memory.
    """
    tool = application.decoders.get(TOOL)
    if not isinstance(tool, LabelStudioTool):
        tool = LabelStudioTool(application.settings)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    register_errors(app)
    predict = PredictService(application, tool)
    events = EventService(application, application.jobs.notify, tool.known_image)
    pusher = Pusher(application, tool, predict)
    predict.hand_over = pusher.hand_over
    application.add_handler(PUSH, pusher)
    application.on_learned(Measurer(application, tool).learned)
    application.on_learned(pusher.learned)
    # What is in use may also be changed by hand, on the pages of this server.
    app.extensions["ovam_moved"] = pusher.later
    reconciler = Reconciler(tool.connections, events, application)
    events.on_training = reconciler.start
    app.extensions["ovam_reconciler"] = reconciler
    where = state or (lambda: {"state": "ready", "message": ""})
    app.register_blueprint(status.blueprint(application, where))
    for prefix, name in (("", "default"), ("/c/<connection>", "connection")):
        app.register_blueprint(setup.blueprint(name, application, tool, predict), url_prefix=prefix or None)
        app.register_blueprint(predictions.blueprint(name, predict, MAX_PREDICTING), url_prefix=prefix or None)
        app.register_blueprint(webhook.blueprint(name, tool.connections, events), url_prefix=prefix or None)
    return app
