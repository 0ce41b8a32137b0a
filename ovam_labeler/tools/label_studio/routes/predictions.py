"""``/predict``."""

from __future__ import annotations

import json
import threading

from flask import Blueprint, Response, request

from ovam_labeler.errors import BadRequestError, ModelError
from ovam_labeler.tools.label_studio.event_service import project_id
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.routes.body import connection_name, json_object
from token_store.entities import Scope


def blueprint(name: str, predict: PredictService, most: int) -> Blueprint:
    """Args: most requests answered at once, so that threads stay free for /health, /setup and /webhook."""
    routes = Blueprint(f"predict_{name}", __name__)
    room = threading.BoundedSemaphore(most)

    @routes.post("/predict")
    def answer(connection: str | None = None) -> Response:
        body = json_object(request, slim=True)
        scope = Scope(connection_name(connection), project_id(body))
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise BadRequestError("The field 'tasks' must be a list.")
        params = body.get("params")
        context = params.get("context") if isinstance(params, dict) else None
        if not room.acquire(blocking=False):
            raise ModelError(f"{most} predictions are under way already; ask again in a moment.")
        try:
            results = predict.answer(
                scope, str(body.get("label_config") or ""), tasks, context if isinstance(context, dict) else None
            )
        finally:
            room.release()
        # One after the other: written at once, the masks of a large batch would hold up every other thread for seconds.
        parts = [json.dumps(result).encode() for result in results]
        return Response(b'{"results": [' + b", ".join(parts) + b"]}", content_type="application/json")

    return routes
