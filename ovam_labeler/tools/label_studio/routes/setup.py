"""``/health``, ``/setup`` and ``/versions``: answered from memory, never from a model, and never waiting for the database.

Label Studio asks /health and /setup before every predict, with 1 s and 3 s of patience.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from ovam_labeler.tools.label_studio.event_service import project_id
from ovam_labeler.tools.label_studio.routes.body import connection_name, json_object
from ovam_labeler.tools.label_studio.setup_service import UNSAID, SetupService
from token_store.entities import Scope


def blueprint(name: str, service: SetupService) -> Blueprint:
    routes = Blueprint(f"setup_{name}", __name__)

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
        version = service.answer(
            scope,
            str(body.get("schema") or ""),
            access_token=body.get("access_token"),
            # Label Studio sends null where none are set; a body without the field says nothing of them.
            extra_params=body.get("extra_params", UNSAID),
        )
        return jsonify({"model_version": version})

    return routes
