"""The OpenAPI document is valid, names every route, and nothing that schemathesis asks gets an answer it does not describe."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from jsonschema_rs import ValidationError
from protocol_helpers import DrawnApplication
from schemathesis.config import SchemathesisConfig

from ovam_labeler.pages.app import PREFIX, register_pages
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.openapi import document
from ovam_labeler.tools.label_studio.security import SECRET_HEADER

SECRET = "of the webhook"

#: Requests of the generating phase for each of the operations; those of the coverage phase come on top.
EXAMPLES = 40

_CONFIG = {
    "seed": 0,
    "base-url": "http://localhost",
    "headers": {SECRET_HEADER: SECRET},
    "generation": {"deterministic": True, "max-examples": EXAMPLES},
    "checks": {
        # Which tasks and regions are right is said by the label config in the same body, in XML.
        "positive_data_acceptance": {"enabled": False},
        # Bodies are read leniently on purpose: Label Studio drops a whole batch for one refused task.
        "negative_data_rejection": {"enabled": False},
        # The right secret beside a wrong one opens the webhook; test_http_webhook.py::test_the_secret has who is let in.
        "ignored_auth": {"enabled": False},
    },
}


described = schemathesis.openapi.from_dict(document(), config=SchemathesisConfig.from_dict(_CONFIG))


@pytest.fixture
def whole_app(make_application: Callable[..., DrawnApplication]) -> Flask:
    """All that the server serves."""
    application = make_application(webhook_secret=SECRET, fetch_timeout=0.2)
    app = create_app(application)  # type: ignore[arg-type]
    register_pages(app, application)  # type: ignore[arg-type]
    return app


def _routes(app: Flask) -> set[tuple[str, str]]:
    """(path as OpenAPI writes it, method) of everything but the pages for people, which the browser tests walk."""
    return {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(f"{PREFIX}/")
    }


def test_every_route_is_in_the_document_and_nothing_else(whole_app: Flask) -> None:
    paths = whole_app.test_client().get("/openapi.json").json["paths"]
    named = {(path, method) for path, item in paths.items() for method in item if method != "parameters"}
    assert named == _routes(whole_app)


def test_document_is_valid() -> None:
    described.validate()


def test_a_document_with_an_unknown_kind_of_security_is_not(whole_app: Flask) -> None:
    broken = whole_app.test_client().get("/openapi.json").json
    broken["components"]["securitySchemes"]["secretHeader"]["in"] = "nowhere"
    with pytest.raises((ValidationError, schemathesis.errors.LoaderError, schemathesis.errors.InvalidSchema)):
        schemathesis.openapi.from_dict(broken).validate()


def test_the_examples_do_what_they_say(whole_app: Flask) -> None:
    client = whole_app.test_client()
    shown = 0
    for path, item in document()["paths"].items():
        for operation in (item[method] for method in item if method != "parameters"):
            if "requestBody" in operation:
                example = operation["requestBody"]["content"]["application/json"]["example"]
                url = path.replace("{connection}", "team-a")
                answer = client.post(url, json=example, headers={SECRET_HEADER: SECRET})
                assert answer.status_code == 200, (path, answer.text)
                assert "results" not in answer.json or answer.json["results"][0]["result"]
                shown += 1
    assert shown == 6


@described.parametrize()
@settings(phases=[Phase.explicit, Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
def test_no_answer_is_one_that_the_document_does_not_describe(case: schemathesis.Case, whole_app: Flask) -> None:
    # Not an argument of the call: some checks make requests of their own.
    case.operation.schema.app = case.operation.app = whole_app
    answer = case.call_and_validate()
    assert "Traceback" not in answer.text and "site-packages" not in answer.text
