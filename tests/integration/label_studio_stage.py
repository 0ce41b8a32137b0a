"""The real Label Studio and our server beside it, as the API suite and the browser suite need them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from server_process import ROOT, ServerProcess, wait_for

from ovam_labeler.demo.label_studio_process import LabelStudio, ensure_installed
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient

ENVIRONMENT = ROOT / ".venv-label-studio"
SECRET = "secret-of-this-test"


@dataclass(frozen=True)
class Stage:
    """Label Studio, our server, and a client of both."""

    studio: LabelStudio
    server: ServerProcess
    client: LabelStudioClient
    settings: Settings

    def idle(self) -> None:
        wait_for(self.server.idle, "the corrections to be learned")

    def version(self, backend: int) -> str:
        """What /setup says now, as Label Studio stores it."""
        return str(self.client.call("GET", f"/api/ml/{backend}", timeout=60)["model_version"])


@contextmanager
def started(folder: Path) -> Iterator[Stage]:
    """Both, started in ``folder`` and ended; no secret and no traceback is in our log afterwards."""
    ensure_installed(ENVIRONMENT)
    with LabelStudio(ENVIRONMENT, folder / "studio", folder / "files", ENVIRONMENT / "templates") as studio:
        settings = Settings(
            data_dir=folder / "state",
            label_studio_url=studio.url,
            label_studio_token=SecretStr(studio.token),
            webhook_secret=SecretStr(SECRET),
            fetch_timeout=120,
            _env_file=None,
        )
        environment = {
            "OVAM_LABEL_STUDIO_URL": studio.url,
            "OVAM_LABEL_STUDIO_TOKEN": studio.token,
            "OVAM_WEBHOOK_SECRET": SECRET,
        }
        with ServerProcess(folder / "state", folder / "server.log", **environment) as server:
            # Label Studio waits 100 s for a prediction; the first one also loads the model.
            wait_for(lambda: server.status()["state"] == "ready", "the base model")
            yield Stage(studio, server, LabelStudioClient(settings), settings)
        log = server.text()
        assert studio.token not in log and SECRET not in log
        assert "Traceback" not in log
