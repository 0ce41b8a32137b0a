"""/health and /setup while the database or the worker is busy."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from protocol_helpers import DrawnApplication, captured

from ovam_labeler.errors import BadConfigError, ModelError
from ovam_labeler.tools.label_studio.setup_memory import SetupMemory


def test_the_present_version_is_answered_and_a_slow_store_is_not_waited_for() -> None:
    memory = SetupMemory(glance=0.05, first=5.0)
    assert [memory.get("p", lambda v=v: v) for v in ("a", "b")] == ["a", "b"]  # type: ignore[misc]
    free = threading.Event()

    def slow() -> str:
        free.wait(60)
        return "c"

    assert memory.get("p", slow) == "b" and memory.get("p", slow) == "b"
    free.set()
    end = time.monotonic() + 60
    while memory.get("p", slow) != "c":
        assert time.monotonic() < end


def test_a_first_question_that_the_store_does_not_answer_is_an_error_in_time() -> None:
    memory = SetupMemory(first=0.05)
    free = threading.Event()
    with pytest.raises(ModelError, match="asks again"):
        memory.get("p", lambda: str(free.wait(60)))
    free.set()


def test_what_a_look_raises_is_raised() -> None:
    def broken() -> str:
        raise BadConfigError("No image.")

    with pytest.raises(BadConfigError):
        SetupMemory().get("p", broken)


def test_the_routes_answer_while_the_store_is_stuck(client: Any, application: DrawnApplication) -> None:
    body = captured("setup")
    version = client.post("/setup", json=body).json["model_version"]
    free = threading.Event()
    kept = application.store.get_project_options
    application.store.get_project_options = lambda scope: free.wait(60) and kept(scope)  # type: ignore[method-assign, assignment, return-value]
    try:
        began = time.monotonic()
        assert client.get("/health").status_code == 200
        assert client.post("/setup", json=body).json["model_version"] == version
        assert time.monotonic() - began < 3.0, "Label Studio gives up after 3 s"
    finally:
        free.set()
