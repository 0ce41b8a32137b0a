"""The OpenAPI 3.1 document of the HTTP API, served at ``/openapi.json``.

Kept by hand, since the routes read Label Studio's bodies leniently and say in one sentence what is wrong with them (see
``docs/adr/0004``).  Tests hold it to what the server does: every route is in it, and schemathesis finds no answer that it
does not describe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovam_labeler import __version__
from ovam_labeler.errors import BadConfigError, FetchError, ModelError, OvamError, StorageFullError, UnauthorizedError
from ovam_labeler.tools.label_studio.security import SECRET_HEADER

Schema = dict[str, Any]

_CONNECTION: Schema = {
    "name": "connection",
    "in": "path",
    "required": True,
    "description": "Which of several Label Studios asks; the bare routes are the connection `default`.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
}

_PROJECT: Schema = {
    "description": "The project's id, as Label Studio sends it: `2`, or `2.1795379479` with the time it was made.",
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,20}(\.[0-9]+)?$"},
        {"type": "integer", "minimum": 0, "maximum": 99999999999999999999},
    ],
}

_REGION: Schema = {
    "type": "object",
    "required": ["id", "from_name", "to_name", "type", "original_width", "original_height", "value"],
    "properties": {
        "id": {"type": "string"},
        "from_name": {"type": "string"},
        "to_name": {"type": "string"},
        "type": {"type": "string", "description": "Such as `brushlabels`; what the label config draws with."},
        "original_width": {"type": "integer", "minimum": 1},
        "original_height": {"type": "integer", "minimum": 1},
        "image_rotation": {"type": "integer"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "value": {"type": "object"},
    },
}

_PREDICTION: Schema = {
    "type": "object",
    "required": ["model_version", "score", "result"],
    "properties": {
        "model_version": {"type": "string", "minLength": 1, "description": "The same string as `/setup` answers."},
        "score": {"type": "number", "minimum": 0, "maximum": 1, "description": "Low where the model doubts."},
        "result": {"type": "array", "items": {"$ref": "#/components/schemas/Region"}},
    },
}

_TASK: Schema = {
    "description": "A task as Label Studio exports it; one that cannot be read is passed over.",
    "properties": {
        "id": {"description": "Number or text."},
        "data": {"description": "Object with the image's reference under the key that the label config names."},
    },
}

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string", "minLength": 1, "description": "One sentence."},
            },
        }
    },
}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Further fields are allowed everywhere: Label Studio adds some with every release."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


_TEXT: Schema = {"type": "string"}
_LIST: Schema = {"type": "array", "items": _TEXT}
_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_DELETED", "START_TRAINING")
_BOTH = {"id": {"description": "Number or text."}}

_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="tag" toName="image"><Label value="snail"/></BrushLabels></View>'
)
#: Eight by eight pixels of grey.
_PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNsYIAAJgaKGAAmCACQtTEKkQAAAABJRU5ErkJggg=="

_SETUP = _object(
    {"project": _PROJECT, "schema": {"type": "string", "description": "The project's label config (XML)."}},
    {
        "hostname": {"description": "Not used: which host may be sent credentials is said by this server's settings."},
        "access_token": {"description": "Legacy token of the project's creator."},
        "extra_params": {"description": "Project options: an object, or its JSON as text."},
    },
)
_PREDICT = _object(
    {
        "project": _PROJECT,
        "label_config": {"type": "string", "description": "XML."},
        "tasks": {"type": "array", "items": {"$ref": "#/components/schemas/Task"}},
    },
    {"params": {"description": "With an object `context` for smart tools: what was clicked."}},
)
_EVENT = _object(
    {"action": {"type": "string", "examples": [*_EVENTS, "PROJECT_UPDATED"]}, "project": _object({"id": _PROJECT})},
    {
        "annotation": {
            "description": "Of ANNOTATION_CREATED and ANNOTATION_UPDATED: an object with its id and result."
        },
        "task": {"description": "Of the same events: an object with its id and data."},
        "annotations": {"description": "Of ANNOTATIONS_DELETED: a list of objects with an id."},
        "tasks": {"description": "Of TASKS_DELETED: a list of objects with an id."},
    },
)

_STORED = _object(
    {"status": {"const": "stored"}, "correction": {"type": "integer"}, "labels": _LIST, "notes": _LIST},
    {"job": {"type": ["integer", "null"]}, "corrections": {"type": "array", "items": {"type": "integer"}}},
)
_NOT_STORED = _object(
    {"status": {"enum": ["ignored", "retracted"]}},
    {"reason": _TEXT, "notes": _LIST, "corrections": {"type": "array", "items": {"type": "integer"}}},
)


def _operation(name: str, summary: str, answers: Mapping[str, Schema], *errors: type[OvamError]) -> Schema:
    responses = {status: {"description": "Done.", "content": _json(schema)} for status, schema in answers.items()}
    for error in errors:
        sentence = (error.__doc__ or "").strip()
        responses[str(error.status)] = {
            "description": sentence,
            "content": _json({"$ref": "#/components/schemas/Error"}),
        }
    return {"operationId": name, "summary": summary, "responses": responses}


def _asks(operation: Schema, body: Schema, example: Schema) -> Schema:
    refused = {"content": _json({"$ref": "#/components/schemas/Error"})}
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body, "example": example}}}
    operation["responses"] |= {
        "400": {"description": "The body cannot be understood.", **refused},
        "413": {"description": "The body is larger than this server takes.", **refused},
    }
    return operation


def _tool_routes(name: str) -> dict[str, Schema]:
    """What Label Studio calls; ``name`` goes into the operations' ids."""
    version = _object({"model_version": {"type": "string", "minLength": 1}})
    results = _object(
        {
            "results": {
                "type": "array",
                "description": "One entry a task, in order, `[]` for one passed over; or exactly one entry, which makes "
                "Label Studio ask task by task.",
                "items": {"anyOf": [{"$ref": "#/components/schemas/Prediction"}, {"type": "array", "maxItems": 0}]},
            }
        }
    )
    secret: list[Schema] = [{"secretHeader": []}, {"secretPassword": []}, {"secretInQuery": []}]
    event = _operation(
        f"{name}Webhook",
        "Store what an annotator did",
        {"200": _NOT_STORED, "201": _STORED},
        UnauthorizedError,
        BadConfigError,
        StorageFullError,
    )
    example = {"action": "ANNOTATIONS_DELETED", "project": {"id": 2}, "annotations": [{"id": 7}]}
    return {
        "/health": {
            "get": _operation(
                f"{name}Health",
                "Whether this server lives, from memory",
                {"200": _object({"status": {"const": "UP"}, "model_class": _TEXT})},
            )
        },
        "/versions": {
            "get": _operation(
                f"{name}Versions", "Empty: a version belongs to a project", {"200": _object({"versions": _LIST})}
            )
        },
        "/setup": {
            "post": _asks(
                _operation(
                    f"{name}Setup",
                    "The project's model version, from memory",
                    {"200": version},
                    BadConfigError,
                    ModelError,
                    StorageFullError,
                ),
                _SETUP,
                {"project": "2.1795379479", "schema": _CONFIG},
            )
        },
        "/predict": {
            "post": _asks(
                _operation(
                    f"{name}Predict",
                    "Masks of tasks",
                    {"200": results},
                    BadConfigError,
                    FetchError,
                    ModelError,
                    StorageFullError,
                ),
                _PREDICT,
                {"project": "2.1795379479", "label_config": _CONFIG, "tasks": [{"id": 1, "data": {"image": _PICTURE}}]},
            )
        },
        "/webhook": {"post": {**_asks(event, _EVENT, example), "security": secret}},
    }


def document() -> Schema:
    """The document, JSON-serialisable."""
    paths: dict[str, Schema] = dict(_tool_routes("default"))
    bad = {"description": "The URL names no connection.", "content": _json({"$ref": "#/components/schemas/Error"})}
    for path, item in _tool_routes("connection").items():
        for operation in item.values():
            for code in ("400", "404"):
                operation["responses"].setdefault(code, bad)
        paths[f"/c/{{connection}}{path}"] = {"parameters": [_CONNECTION], **item}
    status = _operation(
        "status",
        "What this server is and does",
        {
            "200": _object(
                {"name": _TEXT, "version": _TEXT, "model": _TEXT, "state": {"enum": ["loading", "ready", "failed"]}},
                {"message": _TEXT, "jobs": {"type": "object", "additionalProperties": {"type": "integer"}}},
            )
        },
    )
    status["responses"]["302"] = {"description": "A browser is sent to the pages."}
    paths["/"] = {"get": status}
    paths["/openapi.json"] = {"get": _operation("openapi", "This document", {"200": {"type": "object"}})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OVAM Labeler",
            "version": __version__,
            "description": "Label Studio's protocol of machine learning backends. Errors are one sentence, never a traceback.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Region": _REGION, "Prediction": _PREDICTION, "Task": _TASK, "Error": _ERROR},
            "securitySchemes": {
                "secretHeader": {"type": "apiKey", "in": "header", "name": SECRET_HEADER},
                "secretPassword": {"type": "http", "scheme": "basic"},
                "secretInQuery": {"type": "apiKey", "in": "query", "name": "secret"},
            },
        },
    }
