"""``/webhook``: stores what happened and answers; the work is the worker's."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from ovam_labeler.tools.label_studio.connections import Connections
from ovam_labeler.tools.label_studio.event_service import EventService
from ovam_labeler.tools.label_studio.routes.body import connection_name, json_object
from ovam_labeler.tools.label_studio.security import check_webhook


def blueprint(name: str, connections: Connections, events: EventService) -> Blueprint:
    routes = Blueprint(f"webhook_{name}", __name__)

    @routes.post("/webhook")
    def event(connection: str | None = None) -> tuple[Response, int]:
        where = connection_name(connection)
        check_webhook(request, connections.secret(where))
        outcome = events.handle(where, json_object(request))
        return jsonify(outcome.body), outcome.status

    return routes
