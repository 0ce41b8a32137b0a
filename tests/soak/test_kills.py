"""Kill the server at random moments, many times: every correction it acknowledged is learned in the end."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import requests
from server_process import ServerProcess, wait_for
from test_kill_after_webhook import SCOPE, correction_event

from token_store import open_store

ROUNDS = int(os.environ.get("OVAM_SOAK_ROUNDS", "50"))


def test_no_acknowledged_correction_is_lost_over_many_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("OVAM_SOAK_SEED", str(time.time_ns() % 1_000_000)))
    print(f"OVAM_SOAK_SEED={seed}")
    moments = random.Random(seed)
    state, log = tmp_path / "state", tmp_path / "server.log"
    acknowledged: set[int] = set()
    sent = 0
    for _ in range(ROUNDS):
        server = ServerProcess(state, log).start()
        try:
            for _ in range(moments.randint(1, 3)):
                sent += 1
                answer = requests.post(f"{server.url}/webhook", json=correction_event(sent), timeout=60)
                assert answer.status_code == 201, answer.text
                acknowledged.add(answer.json()["correction"])
                time.sleep(moments.choice((0.0, 0.0, 0.3, 2.0, 6.0)))
        finally:
            server.kill()
    store = open_store(state / "ovam.sqlite3")
    try:
        assert {c.id for c in store.list_corrections(SCOPE)} == acknowledged
        with ServerProcess(state, log):
            wait_for(
                lambda: {c.state for c in store.list_corrections(SCOPE)} == {"learned"}, "all corrections to be learned"
            )
        assert store.check() == []
        numbers = [v.number for v in store.list_versions(SCOPE, "disc")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert sum("active" in v.aliases for v in store.list_versions(SCOPE, "disc")) == 1
    finally:
        store.close()
    assert "Traceback" not in log.read_text("utf-8")
