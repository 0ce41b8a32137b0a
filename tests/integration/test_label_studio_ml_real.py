"""PyPI's label-studio-ml 1.0.9 hosts the adapter, and the real Label Studio plays the loop against it.

Both have environments of their own (``make install-label-studio install-label-studio-ml``).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from ml_server_process import ENVIRONMENT, MlServerProcess
from pydantic import SecretStr
from server_process import ROOT, wait_for
from studio_loop import Loop, drawn, loop_scenes, png

from ovam_labeler.demo.label_studio_process import LabelStudio, ensure_installed
from ovam_labeler.demo.project import label_config
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from token_store import open_store
from token_store.contract import TokenStore
from token_store.entities import Scope

pytestmark = [pytest.mark.real_label_studio, pytest.mark.slow]

STUDIO = ROOT / ".venv-label-studio"
SECRET = "secret-of-this-test"
CAPTURES = ROOT / "tests" / "unit" / "label_studio" / "captures"


@dataclass(frozen=True)
class Stage:
    studio: LabelStudio
    server: MlServerProcess
    client: LabelStudioClient
    settings: Settings

    def version(self, backend: int) -> str:
        """What /setup says now, as Label Studio stores it."""
        return str(self.client.call("GET", f"/api/ml/{backend}", timeout=60)["model_version"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    assert (ENVIRONMENT / "bin" / "label-studio-ml").exists(), "run `make install-label-studio-ml`"
    ensure_installed(STUDIO)
    folder = tmp_path_factory.mktemp("label-studio-ml")
    with LabelStudio(STUDIO, folder / "studio", folder / "files", STUDIO / "templates") as studio:
        settings = Settings(
            data_dir=folder / "state",
            label_studio_url=studio.url,
            label_studio_token=SecretStr(studio.token),
            fetch_timeout=120,
            _env_file=None,
        )
        environment = {
            "OVAM_LABEL_STUDIO_URL": studio.url,
            "OVAM_LABEL_STUDIO_TOKEN": studio.token,
            "OVAM_WEBHOOK_SECRET": SECRET,
        }
        with MlServerProcess(folder, folder / "server.log", **environment) as server:
            yield Stage(studio, server, LabelStudioClient(settings), settings)
        log = server.text()
        assert studio.token not in log and SECRET not in log


@pytest.fixture
def store(stage: Stage) -> Iterator[TokenStore]:
    opened = open_store(stage.settings.resolved_database_url(), migrate=False)
    yield opened
    opened.close()


def captured(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((CAPTURES / f"{name}.json").read_text("utf-8"))["body"]
    return body


def test_the_environment_has_the_old_flask_and_the_adapter_takes_it(tmp_path: Path) -> None:
    program = (
        "import json, sys, flask, werkzeug\n"
        "import ovam_labeler.tools.label_studio.ml_adapter, label_studio_ml.api as api\n"
        "print(json.dumps({'flask': flask.__version__, 'werkzeug': werkzeug.__version__,\n"
        "  'manager': type(api._manager).__name__, 'gunicorn': 'gunicorn' in sys.modules}))\n"
    )
    python = str(ENVIRONMENT / "bin" / "python")
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120
    )
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {
        "flask": "1.1.2", "werkzeug": "2.0.2", "manager": "OvamManager", "gunicorn": False,
    }  # fmt: skip


def test_a_process_made_for_an_event_stores_it_and_leaves_the_learning(tmp_path: Path) -> None:
    """As 1.0.9's own manager does it, which ours replaces: the process ends with the event, and a worker in it would too."""
    program = (
        "import json, sys, multiprocessing\n"
        "from label_studio_ml.model import SimpleJobManager\n"
        "from ovam_labeler.tools.label_studio.ml_adapter import OvamModel\n"
        "if __name__ == '__main__':\n"
        "    data = json.load(open(sys.argv[1]))\n"
        "    SimpleJobManager('jobs').run_job(OvamModel, (data.pop('action'), data, '1'))\n"
        "    (child,) = multiprocessing.active_children()\n"
        "    child.join(120)\n"
        "    assert child.exitcode == 0, child.exitcode\n"
    )
    (tmp_path / "event.json").write_text(json.dumps(captured("webhook_ANNOTATION_CREATED")), encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    environment = {
        **os.environ,
        "OVAM_DATA_DIR": str(tmp_path / "state"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    python = str(ENVIRONMENT / "bin" / "python")
    subprocess.run([python, "program.py", "event.json"], check=True, cwd=tmp_path, env=environment, timeout=300)
    opened = open_store(f"sqlite:///{tmp_path / 'state' / 'ovam.sqlite3'}", migrate=False)
    try:
        assert [c.labels for c in opened.list_corrections(Scope("default", "2"))] == [("disc",)]
        assert [(job.kind, job.state, job.attempts) for job in opened.list_jobs()] == [("learn", "queued", 0)]
    finally:
        opened.close()


def test_correct_one_mask_and_the_next_masks_are_better(stage: Stage, store: TokenStore) -> None:
    loop = Loop(stage.client, loop_scenes(), "hosted by label-studio-ml", stage.server.url, SECRET)
    first = loop.retrieve()
    loop.check(first, loop.version)
    processes = stage.server.processes()
    annotations = loop.correct(first)
    scope = Scope("default", str(loop.project))
    # Stored when Label Studio has its answer, by the process that serves.
    assert sorted(c.annotation_id for c in store.list_corrections(scope)) == sorted(map(str, annotations))
    assert stage.server.processes() == processes, "an event was given a process of its own"
    wait_for(stage.server.idle, "the corrections to be learned")
    assert set(store.find_active(scope, loop.labels)) == set(loop.labels)

    version = stage.version(loop.backend)
    assert version != loop.version
    second = loop.retrieve()
    loop.check(second, version)
    before, after = loop.mean(first), loop.mean(second)
    print(f"mean IoU {before:.3f} before, {after:.3f} after one correction a class")
    assert after > before, f"mean IoU {before:.3f} before, {after:.3f} after"
    copies = loop.copies()
    loop.retrieve()
    assert loop.copies() == copies, "an unchanged version was asked for again"

    stage.client.delete_annotation(annotations[0])
    assert {c.state for c in store.list_corrections(scope) if c.annotation_id == str(annotations[0])} == {"retracted"}
    wait_for(stage.server.idle, "the class to be reviewed")
    assert stage.version(loop.backend) != version, "what the deleted annotation taught is still in use"


def test_two_projects_have_versions_of_their_own(stage: Stage) -> None:
    """1.0.9 has one version for all, and predicts with the label config of the last /setup."""
    tasks, backends = {}, {}
    for name in ("red", "blue"):
        project = int(stage.client.create_project(f"project of {name}", label_config([name]))["id"])
        (tasks[name],) = stage.client.import_files(project, {"grey.png": png(grey())})
        backends[name] = stage.client.add_backend(project, stage.server.url)
    assert backends["red"]["model_version"] != backends["blue"]["model_version"]
    body = {"project": f"{backends['red']['project']}.1", "label_config": label_config(["red"]), "params": {}}
    # Another number: reading a task makes Label Studio ask for it, and asked once more at once it would be that question's twin.
    body["tasks"] = [stage.client.task(tasks["red"]) | {"id": 10**9}]
    made = requests.post(f"{stage.server.url}/predict", json=body, timeout=100).json()
    assert made["results"][0]["model_version"] == backends["red"]["model_version"] == made["model_version"]


def test_extra_parameters_become_project_options(stage: Stage, store: TokenStore) -> None:
    body = captured("setup") | {"project": "777.1", "extra_params": {"presence": False, "nonsense": 1}}
    before = requests.post(
        f"{stage.server.url}/setup", json=captured("setup") | {"project": "777.1", "extra_params": None}, timeout=60
    )
    after = requests.post(f"{stage.server.url}/setup", json=body, timeout=60)
    assert before.json()["model_version"] != after.json()["model_version"]
    assert store.get_project_options(Scope("default", "777")) == {"extra_params": {"presence": False}}


def test_a_webhook_without_the_secret_stores_nothing(stage: Stage, store: TokenStore) -> None:
    event = captured("webhook_ANNOTATION_CREATED") | {
        "project": captured("webhook_ANNOTATION_CREATED")["project"] | {"id": 778}
    }
    for headers, status in (({}, 401), ({"X-OVAM-Secret": "wrong"}, 401), ({"X-OVAM-Secret": SECRET}, 201)):
        assert store.list_corrections(Scope("default", "778")) == []
        answer = requests.post(f"{stage.server.url}/webhook", json=event, headers=headers, timeout=60)
        assert answer.status_code == status, answer.text
    assert len(store.list_corrections(Scope("default", "778"))) == 1


def test_errors_are_one_sentence_and_no_traceback(stage: Stage) -> None:
    body = captured("setup") | {"schema": "<View><Text name='t' value='$t'/></View>"}
    for path, posted in (("setup", body), ("predict", body | {"label_config": body["schema"], "tasks": [{"id": 1}]})):
        answer = requests.post(f"{stage.server.url}/{path}", json=posted, timeout=60)
        assert answer.status_code == 422 and answer.json()["error"]["message"].startswith(
            "The label config has no image tag"
        )
        assert answer.reason.startswith("The label config has no image tag") and "Traceback" not in answer.text


def test_a_correction_survives_a_kill_right_after_its_answer(stage: Stage, store: TokenStore) -> None:
    project = int(stage.client.create_project("killed", label_config(["disc", "bar"]))["id"])
    (task,) = stage.client.import_files(project, {"grey.png": png(grey())})
    loop_url = stage.server.url
    stage.client.add_backend(project, loop_url)
    assert stage.client.secure_webhooks(project, loop_url, SECRET) == 1
    annotation = stage.client.submit_annotation(task, [drawn("disc")])
    stage.server.kill()
    (kept,) = store.list_corrections(Scope("default", str(project)))
    assert kept.annotation_id == str(annotation["id"])
    stage.server.start()  # nobody asks for anything: the start itself goes on with what was left
    wait_for(lambda: store.get_correction(kept.id).state == "learned", "the correction to be learned", 120)


def grey() -> np.ndarray:
    return np.full((40, 60, 3), 128, np.uint8)
