"""A server killed right after it acknowledged a correction learns it after its restart."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from server_process import ServerProcess, wait_for

from ovam_labeler.tools.label_studio.rle import encode_mask
from token_store import open_store
from token_store.entities import Scope

CAPTURE = Path(__file__).parents[1] / "unit" / "label_studio" / "captures" / "webhook_ANNOTATION_CREATED.json"
SCOPE = Scope("default", "2")


def correction_event(annotation: int) -> dict[str, Any]:
    """A captured event about a red disc, drawn by hand."""
    y, x = np.mgrid[:120, :160]
    mask = (y - 60) ** 2 + (x - 70) ** 2 < 40**2
    pixels = np.full((120, 160, 3), 180, np.uint8)
    pixels[mask] = (200, 30, 40)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    event: dict[str, Any] = json.loads(CAPTURE.read_text("utf-8"))["body"]
    event["task"] |= {
        "id": annotation,
        "data": {"image": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()},
    }
    event["annotation"]["id"] = annotation
    region = event["annotation"]["result"][0]
    region |= {"original_width": 160, "original_height": 120}
    region["value"]["rle"] = encode_mask(mask)
    return event


@pytest.mark.slow
def test_a_correction_acknowledged_before_sigkill_is_learned_after_restart(tmp_path: Path) -> None:
    state = tmp_path / "state"
    server = ServerProcess(state, tmp_path / "server.log").start()
    setup = {"project": "2.1795379479", "schema": correction_event(1)["project"]["label_config"]}
    try:
        before = requests.post(f"{server.url}/setup", json=setup, timeout=60).json()["model_version"]
        answer = requests.post(f"{server.url}/webhook", json=correction_event(1), timeout=60)
    finally:
        server.kill()
    assert answer.status_code == 201, answer.text

    store = open_store(state / "ovam.sqlite3")
    try:
        # The kill came before the learning: the reading alone takes longer than the answer's way.
        assert [c.state for c in store.list_corrections(SCOPE)] == ["pending"]
        assert store.find_active(SCOPE, ["disc"]) == {}
        with ServerProcess(state, tmp_path / "server.log") as again:
            wait_for(
                lambda: [c.state for c in store.list_corrections(SCOPE)] == ["learned"], "the correction to be learned"
            )
            assert store.find_active(SCOPE, ["disc"])["disc"].source_corrections == (answer.json()["correction"],)
            after = requests.post(f"{again.url}/setup", json=setup, timeout=60).json()["model_version"]
            assert after != before
            replay = requests.post(f"{again.url}/webhook", json=correction_event(1), timeout=60)
            assert replay.json()["status"] == "ignored"
        assert len(store.list_corrections(SCOPE)) == 1
    finally:
        store.close()
    assert "Traceback" not in server.text()


@pytest.mark.slow
def test_setup_and_predict_agree_while_the_model_is_still_loading(tmp_path: Path) -> None:
    """The server listens before the base model is there; /predict waits for it, with the same version."""
    with ServerProcess(tmp_path / "state", tmp_path / "server.log", OVAM_PREDICT_BUDGET="600") as server:
        event = correction_event(1)
        config = event["project"]["label_config"]
        version = requests.post(f"{server.url}/setup", json={"project": "2.1", "schema": config}, timeout=60).json()
        body = {"project": "2.1", "label_config": config, "tasks": [event["task"], event["task"] | {"id": 2}]}
        results = requests.post(f"{server.url}/predict", json=body, timeout=600).json()["results"]
        assert [entry["model_version"] for entry in results] == [version["model_version"]] * 2
        assert server.status()["state"] == "ready"
