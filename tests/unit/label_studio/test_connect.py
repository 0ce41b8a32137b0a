"""``connect``: what it asks of Label Studio, by the measured answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from ovam_labeler.errors import BadRequestError, FetchError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio import connect as module
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connect import Wish, connect
from ovam_labeler.tools.label_studio.connections import Connections
from ovam_labeler.tools.label_studio.credentials import TokenRefusedError
from ovam_labeler.tools.label_studio.doctor_row import ALLOW_PRIVATE

BACKEND = "http://127.0.0.1:9090"


class Studio:
    """A project 1 and what is connected to it; ``hooks=False`` makes no webhook, as with ML_BLOCK_LOCAL_IP=false alone."""

    def __init__(self, *, token: int = 200, private: bool = True, hooks: bool = True) -> None:
        self.token, self.private, self.hooks = token, private, hooks
        self.project: dict[str, Any] = {"id": 1, "title": "cats", "label_config": "<View/>", "model_version": ""}
        self.backends: list[dict[str, Any]] = []
        self.webhooks: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match (method, *path.split("?")[0].strip("/").split("/")[1:]):
            case ("GET", "current-user", "whoami"):
                return self.token, {"id": 1}
            case ("GET", "projects", "1"):
                return 200, self.project
            case ("PATCH", "projects", "1"):
                self.project |= body
                return 200, self.project
            case ("GET", "ml"):
                return 200, self.backends
            case ("POST", "ml"):
                if not self.private:
                    return 403, {"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}
                self.backends.append({**body, "id": len(self.backends) + 1, "model_version": "ovam-x-1"})
                if self.hooks:
                    self.webhooks.append(self._hook(f"{body['url']}/webhook"))
                return 201, self.backends[-1]
            case ("PATCH", "ml", number):
                self.backends[int(number) - 1] |= body
                return 200, self.backends[int(number) - 1]
            case ("GET", "webhooks"):
                return 200, self.webhooks
            case ("POST", "webhooks"):
                if not self.hooks:
                    return 400, {"detail": "URL resolves to a reserved network address"}
                self.webhooks.append(self._hook(body["url"]))
                return 201, self.webhooks[-1]
            case ("PATCH", "webhooks", number):
                (found,) = [h for h in self.webhooks if h["id"] == int(number)]
                found |= body
                return 200, found
            case ("DELETE", "webhooks", number):
                self.webhooks = [h for h in self.webhooks if h["id"] != int(number)]
                return 204, None
        return 404, {"detail": "Not found."}

    def _hook(self, url: str) -> dict[str, Any]:
        return {"id": len(self.webhooks) + 1, "project": 1, "url": url, "headers": {}, "is_active": True}


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    settings = Settings(data_dir=tmp_path, _env_file=None)

    class Client(LabelStudioClient):
        studio: Studio

        def raw_call(self, method: str, path: str, *, timeout: float | None = None, **kwargs: Any) -> requests.Response:
            status, body = Client.studio(method, path, kwargs.get("json"))
            answer = requests.Response()
            answer.status_code = status
            answer._content = b"" if body is None else json.dumps(body).encode()
            return answer

    monkeypatch.setattr(module, "LabelStudioClient", Client)

    def run(studio: Studio, **wish: Any) -> Connections:
        Client.studio = studio
        given = {"url": "http://studio:8080", "token": "tok", "project": 1, "backend_url": BACKEND} | wish
        steps = connect(settings, Wish(**given))
        assert all(step.endswith(".") for step in steps) and "tok" not in " ".join(steps).split()
        return Connections(settings)

    return run


def test_backend_webhook_secret_options_and_project(wire: Any) -> None:
    studio = Studio()
    known = wire(studio, name="team-a", options={"overlap": "independent", "push": 20})
    (backend,), (hook,) = studio.backends, studio.webhooks
    assert backend["url"] == f"{BACKEND}/c/team-a" and backend["extra_params"] == {"overlap": "independent", "push": 20}
    assert hook["url"] == f"{BACKEND}/c/team-a/webhook" and len(known.secret("team-a")) >= 20
    assert hook["headers"] == {"X-OVAM-Secret": known.secret("team-a")}
    assert studio.project["show_collab_predictions"] is True
    assert known.client("team-a").credentials.token == "tok"


def test_done_again_it_mends_and_adds_nothing(wire: Any) -> None:
    studio = Studio()
    secret = wire(studio).secret("default")
    studio.webhooks.append(studio._hook(f"{BACKEND}/webhook"))  # of a backend that was deleted before
    studio.webhooks[0] |= {"headers": {}, "is_active": False}
    known = wire(studio, uncertainty=True)
    assert len(studio.backends) == 1 and len(studio.webhooks) == 1 and known.secret("default") == secret
    assert studio.webhooks[0]["headers"] == {"X-OVAM-Secret": secret} and studio.webhooks[0]["is_active"]
    assert studio.project["sampling"] == "Uncertainty sampling" and studio.backends[0]["title"] == "ovam-x-1"


def test_what_is_refused_is_said_with_its_mending(wire: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenRefusedError):
        wire(Studio(token=401))
    assert Connections(Settings(data_dir=tmp_path, _env_file=None)).names() == []
    with pytest.raises(FetchError, match="reserved network address") as refused:
        wire(Studio(private=False))
    assert ALLOW_PRIVATE in str(refused.value)
    with pytest.raises(FetchError, match="corrections would never arrive") as refused:
        wire(Studio(hooks=False))
    assert ALLOW_PRIVATE in str(refused.value)


@pytest.mark.parametrize(
    ("wish", "said"),
    [({"name": "a/b"}, "name"), ({"options": {"colour": 1}}, "colour"), ({"options": {"push": -1}}, "push")],
)
def test_wishes_that_make_no_sense_change_nothing(wire: Any, wish: dict[str, Any], said: str) -> None:
    studio = Studio()
    with pytest.raises(BadRequestError, match=said):
        wire(studio, **wish)
    assert not studio.backends and not studio.webhooks


def test_one_name_for_two_label_studios_is_refused(wire: Any) -> None:
    wire(Studio(), name="team-a")
    with pytest.raises(BadRequestError, match="another --name"):
        wire(Studio(), name="team-a", url="http://other:8080")
