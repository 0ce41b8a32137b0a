"""Several Label Studios behind one server."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from protocol_helpers import DrawnApplication, annotation_event, brush, half

from ovam_labeler.errors import NotFoundError, OvamError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.connections import FILE, Connections, StoredConnection
from token_store.entities import Scope

TEAM = StoredConnection("team-a", "http://studio-a:8080", "tok-a", "sec-a", "http://ovam:9090/c/team-a")


def connections(folder: Path, **settings: str) -> Connections:
    return Connections(Settings(data_dir=folder, _env_file=None, **settings))  # type: ignore[arg-type]


def test_stored_connections_are_seen_by_a_running_server_and_readable_by_the_owner_only(tmp_path: Path) -> None:
    server = connections(tmp_path, label_studio_url="http://main:8080", label_studio_token="tok-main")
    assert server.names() == ["default"]
    connections(tmp_path).save(TEAM)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert server.names() == ["default", "team-a"] and server.knows("team-a")
    assert server.client("team-a").origin == ("http", "studio-a", 8080)
    assert server.client("team-a").credentials.header() == {"Authorization": "Token tok-a"}
    assert server.client() is server.client("default") and server.client().credentials.token == "tok-main"
    connections(tmp_path).remove("team-a")
    assert server.names() == ["default"]
    with pytest.raises(NotFoundError, match="known are default"):
        server.remove("team-a")


def test_a_name_that_was_never_stored_is_another_path_to_the_settings_one(tmp_path: Path) -> None:
    server = connections(tmp_path, label_studio_url="http://main:8080")
    assert server.client("team-b") is server.client()
    assert connections(tmp_path / "none").client("x").url is None


def test_the_default_may_be_stored_and_the_settings_win(tmp_path: Path) -> None:
    connections(tmp_path).save(StoredConnection("default", "http://stored:1", "t"))
    assert connections(tmp_path).client().url == "http://stored:1" and connections(tmp_path).names() == ["default"]
    assert connections(tmp_path, label_studio_url="http://main:8080").client().url == "http://main:8080"


def test_a_damaged_file_is_an_error_and_no_open_door(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(OvamError, match=FILE):
        connections(tmp_path).secret("team-a")


def test_secrets_and_tokens_are_in_no_representation() -> None:
    assert "tok-a" not in repr(TEAM) and "sec-a" not in repr(TEAM)


def test_each_connections_webhook_has_a_secret_of_its_own(make_application: Callable[..., DrawnApplication]) -> None:
    application = make_application(webhook_secret="main")
    application.tool.connections.save(TEAM)
    client = create_app(application).test_client()  # type: ignore[arg-type]
    event = annotation_event([brush("disc", half())])

    def post(path: str, secret: str) -> int:
        return int(client.post(path, json=event, headers={"X-OVAM-Secret": secret}).status_code)

    assert [post("/webhook", s) for s in ("sec-a", "main")] == [401, 201]
    assert [post("/c/team-a/webhook", s) for s in ("main", "", "sec-a")] == [401, 401, 201]
    assert post("/c/other/webhook", "main") == 201  # never stored: the settings' secret
    assert len(application.store.list_corrections(Scope("team-a", "2"))) == 1
