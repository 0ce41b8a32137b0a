"""The whole loop against the real Label Studio 1.23: connect, predict, correct, learn, predict better.

Label Studio runs in an environment of its own (``make install-label-studio``), our server as a user starts it.  Both are
started once for this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from label_studio_stage import ENVIRONMENT, SECRET, Stage, started
from pydantic import SecretStr
from server_process import ROOT, wait_for
from studio_loop import Loop, drawn, loop_scenes, png

from ovam_labeler.application import build_application
from ovam_labeler.demo.project import label_config
from ovam_labeler.demo.scenes import SceneSet
from ovam_labeler.errors import FetchError
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connect import Wish, connect
from ovam_labeler.tools.label_studio.connections import Connections
from ovam_labeler.tools.label_studio.corrections import TOOL
from ovam_labeler.tools.label_studio.credentials import TokenRefusedError
from ovam_labeler.tools.label_studio.doctor_checks import run_checks
from ovam_labeler.tools.label_studio.rle import encode_mask
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from token_store import open_store
from token_store.entities import Scope

pytestmark = [pytest.mark.real_label_studio, pytest.mark.slow]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with started(tmp_path_factory.mktemp("label-studio")) as made:
        yield made


@pytest.fixture(scope="module")
def scenes() -> SceneSet:
    return loop_scenes()


def test_correct_one_mask_and_the_next_masks_are_better(stage: Stage, scenes: SceneSet) -> None:
    client = stage.client
    loop = Loop(client, scenes, "the whole loop", stage.server.url, SECRET)
    first = loop.retrieve()
    loop.check(first, loop.version)
    loop.correct(first)
    stage.idle()

    store = open_store(stage.settings.resolved_database_url(), migrate=False)
    try:
        scope = Scope("default", str(loop.project))
        assert {c.state for c in store.list_corrections(scope)} == {"learned"}
        tokens = store.find_active(scope, loop.labels)
        assert set(tokens) == set(loop.labels)
        assert store.find_active(Scope("default", "999999"), loop.labels) == {}
    finally:
        store.close()

    version = stage.version(loop.backend)
    assert version != loop.version
    second = loop.retrieve()
    loop.check(second, version)
    before, after = loop.mean(first), loop.mean(second)
    assert after > before, f"mean IoU {before:.3f} before, {after:.3f} after"

    # An event that did arrive is recognised when the project is looked through for lost ones.
    event = {"action": "START_TRAINING", "project": {"id": loop.project}}
    seen = f"default/{loop.project}: 0 corrections had not arrived"
    for times in (1, 2):  # the second look begins at the cursor that the first has left
        requests.post(f"{stage.server.url}/webhook", json=event, headers={"X-OVAM-Secret": SECRET}, timeout=60)
        wait_for(lambda times=times: stage.server.text().count(seen) == times, "the reconciliation", 120)  # type: ignore[misc]

    copies = loop.copies()
    loop.retrieve()
    assert loop.copies() == copies, "an unchanged version was asked for again"


def small_project(stage: Stage, title: str, config: str | None = None) -> tuple[int, int]:
    """A project with one task; returns (project, task)."""
    config = config or label_config(["disc", "bar"])
    project = int(stage.client.create_project(title, config)["id"])
    (task,) = stage.client.import_files(project, {"grey.png": png(np.full((40, 60, 3), 128, np.uint8))})
    return project, task


def test_skips_teach_nothing_and_deletions_take_back(stage: Stage) -> None:
    project, task = small_project(stage, "skip and delete")
    stage.client.add_backend(project, f"{stage.server.url}/c/team-a")
    assert stage.client.secure_webhooks(project, f"{stage.server.url}/c/team-a", SECRET) == 1
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:30, 10:40] = True
    drawn = {
        "id": "drawn", "type": "brushlabels", "from_name": "tag", "to_name": "image", "origin": "manual",
        "original_width": 60, "original_height": 40, "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_mask(mask), "brushlabels": ["disc"]},
    }  # fmt: skip
    stage.client.submit_annotation(task, [], was_cancelled=True)
    annotation = stage.client.submit_annotation(task, [drawn])
    store = open_store(stage.settings.resolved_database_url(), migrate=False)
    try:
        scope = Scope("team-a", str(project))
        assert [c.labels for c in store.list_corrections(scope) if c.labels] == [("disc",)]
        stage.idle()
        stage.client.delete_annotation(int(annotation["id"]))
        assert [c.state for c in store.list_corrections(scope) if c.labels] == ["retracted"]
        assert store.list_corrections(Scope("default", str(project))) == []
    finally:
        store.close()


def test_a_lost_event_is_found_when_training_is_asked_for(stage: Stage) -> None:
    project, task = small_project(stage, "lost event")
    backend = stage.client.add_backend(project, stage.server.url)
    # Without the secret the webhook is refused, and Label Studio says nothing of it.
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:30, 10:40] = True
    value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": ["bar"]}
    region = {
        "id": "a",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "origin": "manual",
        "value": value,
    }
    stage.client.submit_annotation(task, [region | {"original_width": 60, "original_height": 40, "image_rotation": 0}])
    problems = [row for row in run_checks(stage.settings, stage.client) if row.ok is False]
    assert [row.name for row in problems] == [f"project {project} webhook"] and "X-OVAM-Secret" in problems[0].fix
    assert stage.client.secure_webhooks(project, stage.server.url, SECRET) == 1
    store = open_store(stage.settings.resolved_database_url(), migrate=False)
    try:
        scope = Scope("default", str(project))
        assert store.list_corrections(scope) == []
        event = {"action": "START_TRAINING", "project": {"id": project}}
        headers = {"X-OVAM-Secret": SECRET}
        assert requests.post(f"{stage.server.url}/webhook", json=event, headers=headers, timeout=60).status_code == 200
        wait_for(lambda: len(store.list_corrections(scope)) == 1, "the lost annotation to be found")
        assert store.list_corrections(scope)[0].labels == ("bar",)
    finally:
        store.close()
    stage.idle()
    assert backend["state"] == "CO"


def test_a_personal_access_token_is_exchanged(stage: Stage) -> None:
    """A new Label Studio gives out nothing else."""
    project, task = small_project(stage, "personal token")
    browser = requests.Session()
    browser.get(f"{stage.studio.url}/user/login/", timeout=60)
    form = {
        "email": stage.studio.username,
        "password": stage.studio.password,
        "csrfmiddlewaretoken": browser.cookies["csrftoken"],
    }
    headers = {"Referer": f"{stage.studio.url}/user/login/"}
    browser.post(f"{stage.studio.url}/user/login/", data=form, headers=headers, timeout=60).raise_for_status()
    headers["X-CSRFToken"] = browser.cookies["csrftoken"]
    settings = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
    browser.post(f"{stage.studio.url}/api/jwt/settings", json=settings, headers=headers, timeout=60).raise_for_status()
    made = browser.post(f"{stage.studio.url}/api/token/", headers=headers, timeout=60)
    token = str(made.json()["token"])
    client = LabelStudioClient(stage.settings.model_copy(update={"label_studio_token": SecretStr(token)}))
    reference = str(client.task(task)["data"]["image"])
    assert reference.startswith("/data/upload/") and client.fetch_image(reference).startswith(b"\x89PNG")
    raw = requests.get(f"{stage.studio.url}{reference}", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert raw.status_code == 401
    assert int(client.call("GET", f"/api/projects/{project}")["id"]) == project


def test_a_config_without_an_image_is_said_in_label_studios_own_words(stage: Stage) -> None:
    project = int(stage.client.create_project("no image", '<View><Text name="t" value="$t"/></View>')["id"])
    with pytest.raises(FetchError, match="The label config has no image tag"):
        stage.client.add_backend(project, stage.server.url)


def test_refused_tokens_and_unreachable_addresses_are_told_by_the_doctor(stage: Stage) -> None:
    wrong = stage.settings.model_copy(update={"label_studio_token": SecretStr("f" * 40)})
    with pytest.raises(TokenRefusedError):
        LabelStudioClient(wrong).call("GET", "/api/projects")
    rows = run_checks(wrong)
    assert [row.ok for row in rows] == [True, False] and "Personal Access Token" in rows[1].fix
    nowhere = stage.settings.model_copy(update={"label_studio_url": "http://127.0.0.1:9"})
    assert [row.ok for row in run_checks(nowhere)] == [False]


def test_label_studios_own_library_accepts_our_predictions(stage: Stage, tmp_path: Path) -> None:
    """``LabelInterface.validate_prediction`` is what Label Studio's strict flag runs; the SDK's decoder reads our RLE."""
    project, task = small_project(stage, "validated", label_config(["disc", "tea pot", "défaut_07"]))
    body = {
        "project": f"{project}.1",
        "label_config": label_config(["disc", "tea pot", "défaut_07"]),
        "tasks": [stage.client.task(task)],
    }
    # Without the presence decision every label is drawn, and so validated.
    setup = {"project": body["project"], "schema": body["label_config"], "extra_params": {"presence": False}}
    assert requests.post(f"{stage.server.url}/setup", json=setup, timeout=60).status_code == 200
    made = requests.post(f"{stage.server.url}/predict", json=body, timeout=100).json()["results"][0]
    assert made["result"]
    rng = np.random.default_rng(0)
    masks = [rng.random((17, 23)) < density for density in (0.1, 0.5, 0.9)]
    given = {
        "config": body["label_config"],
        "prediction": made,
        "streams": [encode_mask(mask) for mask in masks],
    }
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    program = (
        "import json, sys\n"
        "from label_studio_sdk.label_interface import LabelInterface\n"
        "from label_studio_sdk.converter.brush import decode_rle\n"
        "given = json.load(open(sys.argv[1], encoding='utf-8'))\n"
        "errors = LabelInterface(given['config']).validate_prediction(given['prediction'], return_errors=True)\n"
        "decoded = [[int(v > 0) for v in decode_rle(s)[3::4]] for s in given['streams']]\n"
        "print(json.dumps({'errors': errors, 'decoded': decoded}))\n"
    )
    done = subprocess.run(
        [str(ENVIRONMENT / "bin" / "python"), "-c", program, str(tmp_path / "given.json")],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["errors"] == []
    assert [np.array(d, dtype=bool).reshape(17, 23).tolist() for d in answer["decoded"]] == [m.tolist() for m in masks]


def test_connect_wires_a_project_and_events_that_were_lost_are_found(stage: Stage) -> None:
    project, task = small_project(stage, "connected")
    wish = Wish(
        stage.studio.url, stage.studio.token, project, stage.server.url, "team-c", {"push": 5}, uncertainty=True
    )
    for _ in range(2):  # done again, it mends
        assert len(connect(stage.settings, wish)) >= 3
    (backend,) = stage.client.backends(project)
    assert backend["state"] == "CO" and backend["title"] == backend["model_version"]
    found = stage.client.project(project)
    assert found["sampling"] == "Uncertainty sampling" and found["model_version"] == backend["title"]
    assert len([h for h in stage.client.webhooks(project) if h["project"] == project]) == 1
    scope = Scope("team-c", str(project))
    store = open_store(stage.settings.resolved_database_url(), migrate=False)
    try:
        assert store.get_project_options(scope) == {"extra_params": {"push": 5}}
        kept = stage.client.submit_annotation(task, [drawn("disc")])
        gone = stage.client.submit_annotation(task, [drawn("bar")])
        assert {c.labels for c in store.list_corrections(scope)} == {("disc",), ("bar",)}
        stage.idle()
        (hook,) = [h for h in stage.client.webhooks(project) if h["project"] == project]
        stage.client.call("PATCH", f"/api/webhooks/{hook['id']}/", json={"is_active": False})
        stage.client.update_annotation(int(kept["id"]), [drawn("disc"), drawn("bar", "second")])
        stage.client.delete_annotation(int(gone["id"]))
        lost = stage.client.submit_annotation(task, [drawn("bar")])
        stage.client.call("PATCH", f"/api/webhooks/{hook['id']}/", json={"is_active": True})
        secret = Connections(stage.settings).secret("team-c")
        event = {"action": "START_TRAINING", "project": {"id": project}}
        headers = {"X-OVAM-Secret": secret}
        asked = requests.post(f"{stage.server.url}/c/team-c/webhook", json=event, headers=headers, timeout=60)
        assert asked.status_code == 200
        standing = ("pending", "learned", "failed")
        expected = {str(kept["id"]): ("disc", "bar"), str(lost["id"]): ("bar",)}
        wait_for(
            lambda: {c.annotation_id: c.labels for c in store.list_corrections(scope, states=standing)} == expected,
            "the lost events to be found",
        )
    finally:
        store.close()
    stage.idle()


def test_a_task_asked_for_twice_at_once_is_stored_once_and_shown_both_times(stage: Stage) -> None:
    project, task = small_project(stage, "asked twice")
    stage.client.add_backend(project, stage.server.url)
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(stage.client.call, "GET", f"/api/tasks/{task}?project={project}", timeout=120) for _ in "ab"
        ]
        answers = [a.result() for a in asked]
    assert len(stage.client.predictions(task)) == 1
    assert [len(a["predictions"]) for a in answers] == [1, 1]


def test_when_a_token_lands_the_next_open_tasks_are_predicted_again(stage: Stage) -> None:
    project = int(stage.client.create_project("pushed", label_config(["disc", "bar"]))["id"])
    files = {f"{n}.png": png(np.full((40, 60, 3), 40 * n, np.uint8)) for n in (1, 2, 3)}
    first, *others = stage.client.import_files(project, files)
    backend = stage.client.add_backend(project, stage.server.url)
    assert stage.client.secure_webhooks(project, stage.server.url, SECRET) == 1
    stage.client.submit_annotation(first, [drawn("disc")])
    wait_for(lambda: all(stage.client.predictions(t) for t in others), "the pushed predictions")
    version = stage.version(int(backend["id"]))
    assert version != backend["model_version"]
    for task in others:
        assert [p["model_version"] for p in stage.client.predictions(task)] == [version]
    stage.client.retrieve_predictions(project, others)
    assert [len(stage.client.predictions(task)) for task in others] == [1, 1], "Label Studio asks for nothing it has"


#: The command line, ended the hard way right after it has made its first task: a worker killed at its very end.
KILLED = """
import os, sys
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.client import LabelStudioClient
make = LabelStudioClient.create_task
LabelStudioClient.create_task = lambda *args: (make(*args), os._exit(9))
from ovam_labeler.cli.main import run
run()
"""


def test_generated_pictures_are_tasks_once_and_are_predicted_without_a_unet_pass(stage: Stage, tmp_path: Path) -> None:
    """In processes of their own; then predicted from what Label Studio serves, the UNet's passes counted."""
    client = stage.client
    project = int(client.create_project("generated", label_config(["apple", "house"]))["id"])
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("OVAM_")},
        "OVAM_DATA_DIR": str(tmp_path),
        "OVAM_LABEL_STUDIO_URL": stage.studio.url,
        "OVAM_LABEL_STUDIO_TOKEN": stage.studio.token,
        "OVAM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    wish = [
        "generate",
        "--project",
        str(project),
        "a red apple",
        "--seed",
        "3",
        "--count",
        "2",
        "--steps",
        "4",
        "--json",
    ]

    def command(*start: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *start, *wish], env=environment, capture_output=True, text=True, timeout=600
        )

    assert command("-c", KILLED).returncode == 9
    assert len(client.tasks(project)) == 1
    done = command("-m", "ovam_labeler")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["images"]
    assert [(row["seed"], row["state"], row["made"]) for row in rows] == [(3, "done", False), (4, "done", True)]
    tasks = client.tasks(project)
    assert [task["id"] for task in tasks] == [row["task"] for row in rows]
    uploads = client.call("GET", f"/api/projects/{project}/file-uploads?all=true")
    assert len(uploads) == 2, "a picture was uploaded twice"
    data = tasks[1]["data"]
    expected = {"prompt": "a red apple", "seed": 4, "steps": 4, "model": "embedded"}
    assert expected.items() <= data.items() and {"scheduler", "guidance", "size", "generation_id"} <= set(data)

    settings = stage.settings.model_copy(update={"data_dir": tmp_path})
    with build_application(settings, {TOOL: LabelStudioTool(settings)}) as application:
        app = create_app(application)
        application.inference.warm_up()
        passes: list[object] = []
        reader = application.backend().reader()
        unet = type(reader._pipeline.unet)
        forward = unet.forward
        unet.forward = lambda *args, **kwargs: passes.append(1) or forward(*args, **kwargs)
        try:
            config = label_config(["apple", "house"])
            asked = {"project": f"{project}.1", "label_config": config, "tasks": tasks}
            results = app.test_client().post("/predict", json=asked).get_json()["results"]
            assert all(row["model_version"].startswith("ovam-embedded-") for row in results) and len(results) == 2
            assert passes == [], "a generated picture was read by the UNet"
            (received,) = client.import_files(project, {"grey.png": png(np.full((64, 64, 3), 128, np.uint8))})
            asked["tasks"] = [client.task(received)]
            assert len(app.test_client().post("/predict", json=asked).get_json()["results"]) == 1
            assert passes, "the passes of a picture that was not generated are counted"
        finally:
            unet.forward = forward
