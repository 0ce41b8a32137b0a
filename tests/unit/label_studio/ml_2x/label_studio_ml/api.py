from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Flask, jsonify, request

from .model import LabelStudioMLBase

_server = Flask(__name__)
MODEL_CLASS: type[LabelStudioMLBase] = LabelStudioMLBase
TRAIN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")


def init_app(
    model_class: type[LabelStudioMLBase], basic_auth_user: str | None = None, basic_auth_pass: str | None = None
) -> Flask:
    global MODEL_CLASS
    MODEL_CLASS = model_class
    return _server


def exception_handler(view: Callable[[], Any]) -> Callable[[], Any]:
    @wraps(view)
    def told() -> Any:
        try:
            return view()
        except Exception as error:
            return jsonify({"detail": str(error), "result": {"traceback": traceback.format_exc()}}), 500

    return told


@_server.route("/predict", methods=["POST"])
@exception_handler
def _predict() -> Any:
    data = request.json
    project_id = str(data.get("project")).split(".", 1)[0]
    params = data.get("params", {})
    context = params.pop("context", {})
    model = MODEL_CLASS(project_id=project_id, label_config=data.get("label_config"))
    results = model.predict(data.get("tasks"), context=context, **params)
    return jsonify({"results": [] if results is None else results})


@_server.route("/setup", methods=["POST"])
@exception_handler
def _setup() -> Any:
    data = request.json
    model = MODEL_CLASS(project_id=data.get("project").split(".", 1)[0], label_config=data.get("schema"))
    if data.get("extra_params"):
        model.set_extra_params(data["extra_params"])
    return jsonify({"model_version": model.get("model_version")})


@_server.route("/webhook", methods=["POST"])
def webhook() -> Any:
    data = request.json
    event = data.pop("action")
    if event not in TRAIN_EVENTS:
        return jsonify({"status": "Unknown event"}), 200
    model = MODEL_CLASS(str(data["project"]["id"]), label_config=data["project"]["label_config"])
    return jsonify({"result": model.fit(event, data), "status": "ok"}), 201


@_server.route("/health", methods=["GET"])
@exception_handler
def health() -> Any:
    return jsonify({"status": "UP", "model_class": MODEL_CLASS.__name__})
