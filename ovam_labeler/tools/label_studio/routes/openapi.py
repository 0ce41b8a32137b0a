"""``/openapi.json``: the document that describes every route of this API."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from ovam_labeler.tools.label_studio.openapi import document


def blueprint() -> Blueprint:
    routes = Blueprint("openapi", __name__)
    text = document()

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(text)

    return routes
