"""/health, /setup and /webhook while corrections are learned: within Label Studio's own limits, every time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import requests
from server_process import ServerProcess, wait_for
from test_kill_after_webhook import correction_event

#: Seconds Label Studio waits (measured): /health, /setup, an event.
LIMITS = {"health": 1.0, "setup": 3.0, "webhook": 1.0}
CORRECTIONS = int(os.environ.get("OVAM_SOAK_CORRECTIONS", "6"))


def test_answers_stay_in_time_while_corrections_are_learned(tmp_path: Path) -> None:
    taken: dict[str, list[float]] = {name: [] for name in LIMITS}

    def timed(name: str, ask: Callable[[], Any]) -> None:
        began = time.monotonic()
        assert ask().ok
        taken[name].append(time.monotonic() - began)

    with ServerProcess(tmp_path / "state", tmp_path / "server.log") as server:
        wait_for(lambda: server.status()["state"] == "ready", "the base model")
        setup = {"project": "2.1795379479", "schema": correction_event(1)["project"]["label_config"]}
        for number in range(1, CORRECTIONS + 1):
            event = correction_event(number)
            timed("webhook", lambda event=event: requests.post(f"{server.url}/webhook", json=event, timeout=60))  # type: ignore[misc]
        end = time.monotonic() + 600
        while not server.idle() and time.monotonic() < end:
            timed("health", lambda: requests.get(f"{server.url}/health", timeout=60))
            timed("setup", lambda: requests.post(f"{server.url}/setup", json=setup, timeout=60))
            time.sleep(0.05)
        assert server.idle()
    for name, seconds in taken.items():
        print(
            f"/{name}: {len(seconds)} answers, median {1000 * median(seconds):.1f} ms, slowest {1000 * max(seconds):.1f} ms"
        )
    for name, seconds in taken.items():
        assert max(seconds) < LIMITS[name], f"/{name} took {max(seconds):.2f} s; Label Studio waits {LIMITS[name]} s"
