"""Requests with megabytes of old predictions hold up nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from protocol_helpers import predict_body, task

from ovam_labeler.tools.label_studio import slim
from ovam_labeler.tools.label_studio.routes import body as bodies


def old_predictions(size: int) -> list[dict[str, Any]]:
    value = {"format": "rle", "rle": [7] * size, "brushlabels": ["disc"]}
    return [{"model_version": "old", "result": [{"id": "r", "value": value}]}]


def test_a_large_body_is_answered_like_a_small_one(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = predict_body([task(1), None, task(2), {"id": 3}])
    large = json.loads(json.dumps(small))
    large["tasks"][0] |= {"predictions": old_predictions(1_000_000), "annotations": [], "meta": {}}
    expected = client.post("/predict", json=small).json
    assert client.post("/predict", json=large).json == expected and expected["results"][0]["result"]
    monkeypatch.setattr(bodies, "LARGE_BYTES", 0)
    assert client.post("/predict", json=small).json == expected


def test_a_large_body_that_cannot_be_read_is_told_as_a_small_one(client: Any) -> None:
    for data in (b"[" * 3_000_000, b'{"tasks": ' + b"x" * 3_000_000, json.dumps(["x" * 3_000_000]).encode()):
        answer = client.post("/predict", data=data, content_type="application/json")
        assert answer.status_code == 400 and "JSON" in answer.json["error"]["message"]


def test_this_process_reads_little_of_it_and_writes_masks_one_task_after_the_other(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reads and writes JSON without letting another thread run."""
    read, written = [], []
    loads, dumps = json.loads, json.dumps
    tasks = [{**task(n), "predictions": old_predictions(4000)} for n in range(300)]
    data = dumps(predict_body(tasks)).encode()
    assert len(data) > bodies.LARGE_BYTES

    def reading(text: bytes, **options: Any) -> Any:
        read.append(len(text))
        return loads(text, **options)

    def writing(value: Any, **options: Any) -> str:
        text = dumps(value, **options)
        written.append(len(text))
        return text

    monkeypatch.setattr(json, "loads", reading)
    monkeypatch.setattr(json, "dumps", writing)
    answer = client.post("/predict", data=data, content_type="application/json")
    monkeypatch.undo()
    assert answer.status_code == 200 and len(answer.json["results"]) == 300 and answer.json["results"][0]["result"]
    assert max(read) < len(data) / 20
    assert max(written) < len(answer.data) / 100


@pytest.mark.parametrize(
    "given", [None, [], {"tasks": None}, {"tasks": [1, None, {"id": 5, "x": 1}], "params": {"context": 1}}]
)
def test_what_is_left_out(given: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", slim.__file__], input=json.dumps(given).encode(), capture_output=True
    )
    assert json.loads(done.stdout) == slim.slim(given)
    if isinstance(given, dict) and given["tasks"]:
        assert slim.slim(given) == {"tasks": [1, None, {"id": 5}], "params": {"context": 1}}
