"""``/health``, ``/setup`` and ``/versions``: answered from memory, never from a model, and never waiting for the database.

Label Studio asks /health and /setup before every predict, with 1 s and 3 s of patience.
"""

from __future__ import annotations

import logging

from flask import Blueprint, Response, jsonify, request

from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.event_service import project_id
from ovam_labeler.tools.label_studio.extra_params import read_extra_params
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.routes.body import connection_name, json_object
from ovam_labeler.tools.label_studio.setup_memory import SetupMemory
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from ovam_labeler.translate import translate_errors
from token_store.entities import Scope

log = logging.getLogger(__name__)


def blueprint(name: str, application: Application, tool: LabelStudioTool, predict: PredictService) -> Blueprint:
    routes = Blueprint(f"setup_{name}", __name__)
    memory = SetupMemory()

    @routes.get("/health")
    def health(connection: str | None = None) -> Response:
        connection_name(connection)
        return jsonify({"status": "UP", "model_class": "OvamLabeler"})

    @routes.get("/versions")
    def versions(connection: str | None = None) -> Response:
        connection_name(connection)
        # A version belongs to a project, and this request names none.
        return jsonify({"versions": [], "message": "Versions are listed by `ovam-labeler tokens list`."})

    @routes.post("/setup")
    def setup(connection: str | None = None) -> Response:
        body = json_object(request)
        scope = Scope(connection_name(connection), project_id(body))
        config = tool.parse_config(str(body.get("schema") or ""))
        token = body.get("access_token")
        client = tool.connections.client(scope.connection)
        if isinstance(token, str) and token and client.url is not None:
            client.credentials.offer(token)
        for notice in config.notices:
            log.info("Project %s: %s", scope, notice)
        extra = body.get("extra_params")

        def look() -> str:
            keep_options(scope, extra)
            return predict.model_version(config, scope, predict.options(scope))

        return jsonify({"model_version": memory.get((scope, config), look)})

    def keep_options(scope: Scope, extra: object) -> None:
        given, notes = read_extra_params(application.settings, extra)
        for note in notes:
            log.warning("Project %s: %s", scope, note)
        if not given:
            return
        with translate_errors():
            stored = application.store.get_project_options(scope)
            if any(stored.get(key) != value or key not in stored for key, value in given.items()):
                application.store.change_project_options(
                    scope, given, who="label studio", why="extra params of the project's backend"
                )

    return routes
