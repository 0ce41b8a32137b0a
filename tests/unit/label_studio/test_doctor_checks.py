"""The doctor's sentences for answers measured on Label Studio 1.23.2 (the real one is asked in tests/integration)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from protocol_helpers import CONFIG, data_uri
from pydantic import SecretStr

from ovam_labeler.checks import label_studio
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connections import Connections, StoredConnection
from ovam_labeler.tools.label_studio.doctor_checks import ALLOW_PRIVATE, Row, run_checks

BACKEND = {"id": 4, "url": "http://127.0.0.1:9090", "state": "CO", "title": "OVAM", "model_version": "ovam-embedded-1"}
HOOK = {"id": 5, "project": 1, "url": "http://127.0.0.1:9090/webhook", "is_active": True, "headers": {}}
RESERVED = '{"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}'


class RecordedStudio(LabelStudioClient):
    """Answers as recorded, by method and path."""

    def __init__(self, settings: Settings, **answers: Any) -> None:
        super().__init__(settings)
        self._answers: dict[str, Any] = {
            "GET /api/current-user/whoami": (200, {"id": 1}),
            "GET /api/projects": (200, {"results": [{"id": 1, "title": "cats", "sampling": "Sequential sampling"}]}),
            "POST /api/ml": (400, {"detail": "Can't connect to ML backend"}),
            "GET /api/webhooks/": (200, [HOOK]),
            "GET /api/ml": (200, [BACKEND]),
            "health": 200,
        } | answers

    def session(self) -> requests.Session:
        studio = self

        class Health(requests.Session):
            def get(self, *_: Any, **__: Any) -> requests.Response:  # type: ignore[override]
                if studio._answers["health"] is None:
                    raise requests.ConnectionError
                return studio._response(studio._answers["health"], {})

        return Health()

    def raw_call(self, method: str, path: str, *, timeout: float | None = None, **kwargs: Any) -> requests.Response:
        return self._response(*self._answers[f"{method} {path.split('?')[0]}"])

    def _response(self, status: int, body: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code = status
        answer._content = body.encode() if isinstance(body, str) else requests.models.complexjson.dumps(body).encode()
        return answer


def rows(token: str | None = "f" * 40, secret: str | None = None, **answers: Any) -> list[Row]:
    settings = Settings(
        label_studio_url="http://localhost:8080",
        label_studio_token=None if token is None else SecretStr(token),
        webhook_secret=None if secret is None else SecretStr(secret),
        _env_file=None,
    )
    return run_checks(settings, RecordedStudio(settings, **answers))


def problem(found: list[Row]) -> Row:
    (bad,) = [row for row in found if row.ok is False]
    assert bad.sentence.endswith(".") and bad.fix
    return bad


def test_all_is_well() -> None:
    assert [row.ok for row in rows()] == [True] * 5


@pytest.mark.parametrize("health", [None, 404])
def test_label_studio_is_not_there(health: int | None) -> None:
    assert "OVAM_LABEL_STUDIO_URL" in problem(rows(health=health)).fix


def test_tokens() -> None:
    assert "not set" in problem(rows(token=None)).sentence
    refused = {"GET /api/current-user/whoami": (401, {"detail": "Invalid token."})}
    legacy = problem(rows(**refused))
    assert "legacy tokens are off" in legacy.sentence and "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true" in legacy.fix
    assert "f" * 40 not in str(legacy)


def test_private_addresses_are_refused() -> None:
    bad = problem(rows(**{"POST /api/ml": (403, RESERVED)}))
    assert ALLOW_PRIVATE in bad.fix and "USER_ADDITIONAL_BANNED_SUBNETS=169.254.0.0/16" in bad.fix


def test_a_connected_backend_without_its_webhook() -> None:
    for hooks in ([], [HOOK | {"is_active": False}], [HOOK | {"project": 9}], [HOOK | {"url": "http://other/webhook"}]):
        assert "corrections never arrive" in problem(rows(**{"GET /api/webhooks/": (200, hooks)})).sentence


def test_a_webhook_without_the_secret() -> None:
    bad = problem(rows(secret="hush"))
    assert "X-OVAM-Secret" in bad.fix and "hush" not in str(bad)
    for right in (
        HOOK | {"headers": {"x-ovam-secret": "hush"}},
        HOOK | {"url": "http://any:hush@127.0.0.1:9090/webhook"},
    ):
        backend = BACKEND | {"url": str(right["url"]).removesuffix("/webhook")}
        found = rows(secret="hush", **{"GET /api/webhooks/": (200, [right]), "GET /api/ml": (200, [backend])})
        assert [row.ok for row in found] == [True] * 5 and "hush" not in str(found)


def test_a_disconnected_backend_and_none_at_all() -> None:
    gone = BACKEND | {"state": "DI", "readable_state": "Disconnected"}
    assert "ovam-labeler serve" in problem(rows(**{"GET /api/ml": (200, [gone])})).fix
    assert "Connect Model" in problem(rows(**{"GET /api/ml": (200, [BACKEND | {"model_version": "other"}])})).fix


def test_uncertainty_ordering_needs_the_title() -> None:
    project = {"id": 1, "title": "cats", "sampling": "Uncertainty sampling"}
    bad = problem(rows(**{"GET /api/projects": (200, {"results": [project]})}))
    assert '"title": "ovam-embedded-1"' in bad.fix
    titled = {"GET /api/ml": (200, [BACKEND | {"title": "ovam-embedded-1"}])}
    assert [row.ok for row in rows(**{"GET /api/projects": (200, [project])}, **titled)] == [True] * 5


def test_an_address_that_is_none() -> None:
    settings = Settings(label_studio_url="localhost", _env_file=None)
    assert "no http or https URL" in problem(run_checks(settings)).sentence


def test_an_api_that_fails_is_one_row() -> None:
    assert "500" in problem(rows(**{"GET /api/webhooks/": (500, "oops")})).sentence


def test_predictions_that_are_not_shown() -> None:
    project = {"id": 1, "title": "cats", "show_collab_predictions": False}
    off = problem(rows(**{"GET /api/projects": (200, {"results": [project]})}))
    assert "does not show predictions" in off.sentence
    project |= {"show_collab_predictions": True, "model_version": None}
    null = problem(rows(**{"GET /api/projects": (200, {"results": [project]})}))
    assert "not of the backend" in null.sentence and "'OVAM'" in null.fix
    project["model_version"] = "OVAM"
    assert [row.ok for row in rows(**{"GET /api/projects": (200, {"results": [project]})})] == [True] * 5


def test_several_webhooks_to_one_backend() -> None:
    twice = problem(rows(**{"GET /api/webhooks/": (200, [HOOK, HOOK | {"id": 6}])}))
    assert "2 webhooks" in twice.sentence and "delete all but one" in twice.fix


def test_a_label_config_or_an_image_that_cannot_be_used() -> None:
    project = {"id": 1, "title": "cats", "label_config": "<View/>"}
    assert "image" in problem(rows(**{"GET /api/projects": (200, {"results": [project]})})).sentence
    project["label_config"] = CONFIG
    projects = {"GET /api/projects": (200, {"results": [project]})}
    given = {"tasks": [{"id": 7, "data": {"image": data_uri()}}]}
    assert [row.ok for row in rows(**projects, **{"GET /api/tasks": (200, given)})] == [True] * 6
    given["tasks"][0]["data"] = {"image": "ftp://x/y.png"}
    assert "task 7" in problem(rows(**projects, **{"GET /api/tasks": (200, given)})).sentence
    assert [row.ok for row in rows(**projects, **{"GET /api/tasks": (200, {"tasks": []})})] == [True] * 5 + [None]


def test_every_connection_is_looked_at(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None)
    assert [c.ok for c in label_studio(settings)] == [None]
    for name, port in (("a", 9), ("b", 19)):
        Connections(settings).save(StoredConnection(name, f"http://127.0.0.1:{port}", "t"))
    assert [c.name for c in label_studio(settings)] == ["a: label studio", "b: label studio"]
