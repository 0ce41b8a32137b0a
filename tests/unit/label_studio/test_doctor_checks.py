"""The doctor's sentences for answers measured on Label Studio 1.23.2 (the real one is asked in tests/integration)."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from protocol_helpers import CONFIG, data_uri
from pydantic import SecretStr

from ovam_labeler.checks import label_studio
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio import doctor_backend
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connections import Connections, StoredConnection
from ovam_labeler.tools.label_studio.doctor_checks import run_checks
from ovam_labeler.tools.label_studio.doctor_row import ALLOW_PRIVATE, Row

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
            "GET /api/version": (200, {"release": "1.23.2"}),
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


def project_with(**fields: Any) -> dict[str, Any]:
    return {"GET /api/projects": (200, {"results": [{"id": 1, "title": "cats", **fields}]})}


def test_another_label_studio_and_a_time_limit_beyond_its_own() -> None:
    (other,) = [row for row in rows(**{"GET /api/version": (200, {"release": "1.30.0"})}) if row.ok is None]
    assert "1.30.0" in other.sentence and "1.23.2" in other.sentence
    assert [row.ok for row in rows(**{"GET /api/version": (404, {})})] == [True] * 5
    settings = Settings(
        label_studio_url="http://localhost:8080",
        label_studio_token=SecretStr("f" * 40),
        predict_budget=120,
        _env_file=None,
    )
    late = problem(run_checks(settings, RecordedStudio(settings)))
    assert "120 s" in late.sentence and "OVAM_PREDICT_BUDGET=60" in late.fix


def test_predictions_on_every_listing() -> None:
    listing = problem(rows(**project_with(evaluate_predictions_automatically=True)))
    assert "whenever its tasks are listed" in listing.sentence and "evaluate_predictions_automatically" in listing.fix


def test_two_backends_of_ours_and_a_webhook_that_outlived_its_backend() -> None:
    twice = {"GET /api/ml": (200, [BACKEND, BACKEND | {"id": 5}])}
    assert "2 backends of ours" in problem(rows(**twice)).sentence
    elsewhere = {"results": [{"id": 1, "title": "cats"}, {"id": 2, "title": "dogs"}]}
    backends = iter([[BACKEND], []])

    class Two(RecordedStudio):
        def backends(self, project: int) -> list[dict[str, Any]]:
            return next(backends)

    settings = Settings(label_studio_url="http://x", label_studio_token=SecretStr("f" * 40), _env_file=None)
    studio = Two(
        settings,
        **{"GET /api/projects": (200, elsewhere), "GET /api/webhooks/": (200, [HOOK, HOOK | {"id": 6, "project": 2}])},
    )
    left = problem(run_checks(settings, studio))
    assert left.name == "project 2 webhook" and "leaves its webhook" in left.sentence


def test_a_webhook_of_the_whole_organisation_counts_as_well() -> None:
    both = [HOOK, HOOK | {"id": 6, "project": None}]
    assert "2 webhooks" in problem(rows(**{"GET /api/webhooks/": (200, both)})).sentence
    alone = {"GET /api/webhooks/": (200, [HOOK | {"project": None}])}
    assert [row.ok for row in rows(**alone)] == [True] * 5


def test_a_webhook_that_does_not_send_all() -> None:
    bare = problem(rows(**{"GET /api/webhooks/": (200, [HOOK | {"send_payload": False}])}))
    assert "without their payload" in bare.sentence
    few = HOOK | {"send_for_all_actions": False, "actions": ["ANNOTATION_CREATED", "START_TRAINING", "TASKS_DELETED"]}
    some = problem(rows(**{"GET /api/webhooks/": (200, [few])}))
    assert "does not send ANNOTATION_UPDATED, ANNOTATIONS_DELETED." in some.sentence
    all_of_them = few | {"actions": list(doctor_backend.ACTIONS)}
    assert [row.ok for row in rows(**{"GET /api/webhooks/": (200, [all_of_them])})] == [True] * 5


def test_smart_tools_of_a_backend_that_is_not_interactive() -> None:
    config = CONFIG.replace(
        "</View>", '<KeyPointLabels name="k" toName="image" smart="true"><Label value="disc"/></KeyPointLabels></View>'
    )
    none = {"GET /api/tasks": (200, {"tasks": []})}
    silent = {"GET /api/ml": (200, [BACKEND | {"is_interactive": False}])}
    assert "clicks are sent to nobody" in problem(rows(**project_with(label_config=config), **none, **silent)).sentence
    heard = {"GET /api/ml": (200, [BACKEND | {"is_interactive": True}])}
    assert all(row.ok is not False for row in rows(**project_with(label_config=config), **none, **heard))


def test_extra_params_that_are_passed_over() -> None:
    none = {"GET /api/tasks": (200, {"tasks": []})}

    def asked(extra: Any) -> list[Row]:
        backend = {"GET /api/ml": (200, [BACKEND | {"extra_params": extra}])}
        return rows(**project_with(label_config=CONFIG), **none, **backend)

    assert "'pussh' is unknown" in problem(asked({"pussh": 3})).sentence
    assert "'push' is -1" in problem(asked('{"push": -1}')).sentence
    assert "lists 'ring'" in problem(asked({"classes": ["disc", "ring"]})).sentence
    assert all(row.ok is not False for row in asked({"classes": ["disc"], "push": 3}))


def test_an_image_that_cannot_be_decoded_and_a_task_without_a_prediction() -> None:
    broken = {"tasks": [{"id": 7, "data": {"image": "data:image/png;base64,AAAA"}}]}
    assert "task 7" in problem(rows(**project_with(label_config=CONFIG), **{"GET /api/tasks": (200, broken)})).sentence
    bare = {"tasks": [{"id": 7, "data": {"image": data_uri()}, "total_predictions": 0}]}
    found = rows(**project_with(label_config=CONFIG), **{"GET /api/tasks": (200, bare)})
    assert [row.ok for row in found] == [True] * 6 + [None] and "is no proof" in found[-1].sentence


@pytest.mark.parametrize(
    ("slow", "status", "words"),
    [
        ("/health", 200, "Label Studio gives up after 1 s"),
        ("/webhook", 200, "waits 1 s, once"),
        ("", 401, "refuses this connection's secret"),
        ("", 200, None),
    ],
)
def test_a_backend_that_answers_late_or_refuses_its_own_webhook(
    monkeypatch: pytest.MonkeyPatch, slow: str, status: int, words: str | None
) -> None:
    monkeypatch.setattr(doctor_backend, "HEALTH_SECONDS", 0.2)
    monkeypatch.setattr(doctor_backend, "WEBHOOK_SECONDS", 0.2)
    seen: list[tuple[str, Any]] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("X-OVAM-Secret")))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == slow:
                time.sleep(0.4)
            self.send_response(status if self.path == "/webhook" else 200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        backend = {"GET /api/ml": (200, [BACKEND | {"url": url}])}
        hook = {"GET /api/webhooks/": (200, [HOOK | {"url": f"{url}/webhook", "headers": {"X-OVAM-Secret": "hush"}}])}
        found = rows(secret="hush", **backend, **hook)
    finally:
        server.shutdown()
        server.server_close()
    assert seen == [("/health", None), ("/webhook", "hush")]
    if words is None:
        assert [row.ok for row in found] == [True] * 5
    else:
        assert words.replace("1 s", "0.2 s") in problem(found).sentence and "hush" not in str(found)


def test_a_backend_of_another_connection_is_left_to_that_ones_checks() -> None:
    other = {"GET /api/ml": (200, [BACKEND | {"url": "http://127.0.0.1:9090/c/team-b"}])}
    settings = Settings(
        label_studio_url="http://localhost:8080", label_studio_token=SecretStr("f" * 40), _env_file=None
    )
    studio = RecordedStudio(settings, **other)
    assert (
        "no active webhook to http://127.0.0.1:9090/c/team-b/webhook" in problem(run_checks(settings, studio)).sentence
    )
    assert "No project" in problem(run_checks(settings, studio, ["team-b"])).sentence
