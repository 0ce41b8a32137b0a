"""1,000 tasks "Retrieve predictions" in the real Label Studio while tokens are being learned.

All are predicted, none twice for one version, although Label Studio goes through them one by one and stores them at the
end, while pushes come in between; and /health and /setup are answered within Label Studio's own limits every time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import requests
from pydantic import SecretStr
from server_process import ServerProcess, wait_for
from studio_loop import png
from test_answers_in_time import LIMITS
from test_events import LABELS, Annotators, picture
from test_label_studio_real import ENVIRONMENT, SECRET

from ovam_labeler.demo.label_studio_process import LabelStudio, ensure_installed
from ovam_labeler.demo.project import label_config
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient

TASKS = int(os.environ.get("OVAM_SOAK_TASKS", "1000"))

#: While predictions are retrieved, a correction comes this often in seconds, or when those before it are learned.
CORRECTED_EVERY = 15.0


@contextmanager
def asked_all_along(url: str, setup: dict[str, Any]) -> Iterator[dict[str, list[float]]]:
    """Ask /health and /setup twenty times a second, as if Label Studio did; yields the seconds each answer took."""
    taken: dict[str, list[float]] = {"health": [], "setup": []}
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.wait(0.05):
            for name in taken:
                began = time.monotonic()
                if name == "health":
                    answer = requests.get(f"{url}/health", timeout=60)
                else:
                    answer = requests.post(f"{url}/setup", json=setup, timeout=60)
                taken[name].append(time.monotonic() - began if answer.ok else float("inf"))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield taken
    finally:
        stopping.set()
        thread.join()


def test_all_are_predicted_and_none_twice_for_one_version(tmp_path: Path) -> None:
    ensure_installed(ENVIRONMENT)
    with LabelStudio(ENVIRONMENT, tmp_path / "studio", tmp_path / "files", ENVIRONMENT / "templates") as studio:
        settings = Settings(
            data_dir=tmp_path / "state",
            label_studio_url=studio.url,
            label_studio_token=SecretStr(studio.token),
            fetch_timeout=120,
            _env_file=None,
        )
        client = LabelStudioClient(settings)
        environment = {
            "OVAM_LABEL_STUDIO_URL": studio.url,
            "OVAM_LABEL_STUDIO_TOKEN": studio.token,
            "OVAM_WEBHOOK_SECRET": SECRET,
        }
        with ServerProcess(tmp_path / "state", tmp_path / "server.log", **environment) as server:
            wait_for(lambda: server.status()["state"] == "ready", "the base model")
            config = label_config(LABELS)
            project = int(client.create_project("retrieved", config)["id"])
            pictures = [picture(n) for n in range(TASKS)]
            tasks = client.import_files(project, {f"{n}.png": png(p) for n, (p, _) in enumerate(pictures)})
            client.add_backend(project, server.url)
            assert client.secure_webhooks(project, server.url, SECRET) == 1
            annotators = Annotators(client, {t: m for t, (_, m) in zip(tasks, pictures, strict=True)}, 0)
            setup = {"project": f"{project}.0", "schema": config}
            stopping = threading.Event()

            def correct() -> None:
                while not stopping.is_set():
                    if not server.status()["jobs"]["queued"]:
                        task = tasks[-1 - annotators.done["submit"]]
                        client.submit_annotation(task, annotators.drawn(task))
                        annotators.done["submit"] += 1
                    stopping.wait(CORRECTED_EVERY)

            correcting = threading.Thread(target=correct)
            began = time.monotonic()
            with asked_all_along(server.url, setup) as taken:
                correcting.start()
                try:
                    client.retrieve_predictions(project, tasks, timeout=7200)
                    seconds = time.monotonic() - began
                finally:
                    stopping.set()
                    correcting.join()
                wait_for(server.idle, "the corrections to be learned and pushed", 1800)
            stored = {int(task["id"]): task["predictions"] for task in client.tasks(project)}
            copies = Counter((task, p["model_version"]) for task, rows in stored.items() for p in rows)
            versions = {version for _, version in copies}
            print(
                f"{TASKS} tasks retrieved in {seconds:.0f} s while {annotators.done['submit']} corrections were learned; "
                f"predicted {sum(bool(rows) for rows in stored.values())}, versions {len(versions)}, "
                f"twice for one version {sum(count > 1 for count in copies.values())}"
            )
            for name, each in taken.items():
                print(
                    f"/{name}: {len(each)} answers, median {1000 * median(each):.1f} ms, slowest {1000 * max(each):.1f} ms"
                )
            assert all(stored.values()), "a task was not predicted"
            assert len(versions) > 1, "no token landed meanwhile"
            assert max(copies.values()) == 1
            for name, each in taken.items():
                assert max(each) < LIMITS[name], f"/{name} took {max(each):.2f} s; Label Studio waits {LIMITS[name]} s"
