"""Eight processes at one class, and processes killed while they learn, promote or migrate, on both databases.

``make soak`` makes it long: OVAM_CONTEND_SECONDS=60, OVAM_KILLS=50.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from sqlalchemy import text

from token_store import open_store, schema, tensor_codec
from token_store.engine import WRITES, locate, make_engine
from token_store.entities import Scope
from token_store.registry_contract import ACTIVE

SCOPE = Scope("default", "1")
WORKER = Path(__file__).with_name("store_worker.py")
SECONDS = float(os.environ.get("OVAM_CONTEND_SECONDS", "10"))
KILLS = int(os.environ.get("OVAM_KILLS", "3"))
PROCESSES = 8


def start(url: str, name: str, *mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), url, name, *mode],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
    )


def killed(process: subprocess.Popen[str], after: float) -> list[list[str]]:
    """Kill it so many seconds after its first word; the words of each whole line it had said."""
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    rest, errors = process.communicate()
    assert "Traceback" not in errors, errors
    # A last line without its newline was cut by the kill.
    return [line.split() for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.slow
def test_eight_processes_learn_and_promote_one_class(store_url: str) -> None:
    processes = [start(store_url, f"p{n}", "contend", str(SECONDS)) for n in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said: list[list[str]] = []
    for process in processes:
        output, errors = process.communicate(timeout=SECONDS + 600)
        assert process.returncode == 0, errors
        said += [line.split() for line in output.splitlines()]
    acknowledged = [int(words[1]) for words in said if words[0] == "version"]
    promoted = [int(words[1]) for words in said if words[0] == "promoted"]
    assert len(acknowledged) >= PROCESSES and promoted
    store = open_store(store_url)
    numbers = [v.number for v in store.list_versions(SCOPE, "cat")]
    assert sorted(acknowledged) == numbers == list(range(1, len(numbers) + 1))
    active = [v for v in store.list_versions(SCOPE, "cat") if ACTIVE in v.aliases]
    moves = [e for e in store.audit(1_000_000, scope=SCOPE, class_name="cat") if e["details"].get("alias") == ACTIVE]
    assert [v.number for v in active] == [moves[0]["details"]["to"]]
    # The audit log is one unbroken chain of moves, each from where the one before had led.
    chain = [(e["details"]["from"], e["details"]["to"]) for e in reversed(moves)]
    assert chain[0][0] is None and all(a[1] == b[0] for a, b in zip(chain, chain[1:], strict=False))
    assert {to for _, to in chain} >= set(promoted)
    assert store.check() == []
    store.close()
    print(f"{len(numbers)} versions, {len(promoted)} promotions, {sum(w[0] == 'conflict' for w in said)} conflicts")


@pytest.mark.slow
def test_killed_while_learning_nothing_acknowledged_is_lost(store_url: str) -> None:
    moments, corrections, versions, learned = random.Random(1), set(), set(), set()
    for round_ in range(KILLS):
        for words in killed(start(store_url, f"learner{round_}", "learn"), moments.uniform(0, 0.6)):
            {"correction": corrections, "version": versions, "learned": learned}[words[0]].add(int(words[1]))
        store = open_store(store_url)
        assert store.check() == []
        stored = {c.id: c.state for c in store.list_corrections(SCOPE, limit=1_000_000)}
        assert corrections <= set(stored)
        assert {stored[c] for c in learned} <= {"learned"}
        found = store.list_versions(SCOPE, "cat")
        assert [v.number for v in found] == list(range(1, len(found) + 1))
        assert versions <= {v.number for v in found}
        assert [v.number for v in found if ACTIVE in v.aliases] == ([len(found)] if found else [])
        # Correction and job are one transaction; a job cut off half way is taken up again, and gives no second version.
        assert len(store.list_jobs(limit=1_000_000)) == len(stored)
        store.requeue_interrupted()
        sources = [v.source_corrections for v in found]
        assert len(set(sources)) == len(sources)
        store.close()
    assert corrections


@pytest.mark.slow
def test_killed_while_promoting_the_alias_is_where_it_was_said_to_be(store_url: str) -> None:
    moments = random.Random(2)
    said = 0
    for round_ in range(KILLS):
        lines = killed(start(store_url, f"chooser{round_}", "promote"), moments.uniform(0.05, 0.6))
        acknowledged = [words[1] for words in lines if words[0] == "active"]
        said += len(acknowledged)
        store = open_store(store_url)
        assert store.check() == []
        token = store.get_token(SCOPE, "cat")
        moves = store.audit(1_000_000, scope=SCOPE, class_name="cat")
        moves = [e["details"] for e in moves if e["details"].get("alias") == ACTIVE]
        assert token.aliases.get(ACTIVE) == (moves[0]["to"] if moves else None)
        assert all(new["from"] == old["to"] for new, old in zip(moves, moves[1:], strict=False))
        if acknowledged:
            # The last acknowledged move is the newest in the log, or the one before a move cut off unsaid; a promotion
            # of what was active already moved nothing.
            assert acknowledged[-1] in {str(move[end]) for move in moves[:2] for end in ("from", "to")}
        store.close()
    assert said


@pytest.mark.slow
def test_killed_while_migrating_the_store_opens(new_database: Callable[[], str]) -> None:
    moments, cut = random.Random(3), 0
    whole = start(old_database(new_database()), "migrant", "migrate")
    assert whole.stdout is not None and whole.stdout.readline() == "opening\n"
    began = time.monotonic()
    assert whole.stdout.readline() == "opened\n"
    took = time.monotonic() - began
    whole.communicate()
    for _ in range(KILLS):
        url = old_database(new_database())
        lines = killed(start(url, "migrant", "migrate"), moments.uniform(0, took))
        cut += ["opened"] not in lines
        store = open_store(url)
        assert store.check() == []
        assert [v.number for v in store.list_versions(SCOPE, "cat")] == [1]
        assert store.get_token(SCOPE, "cat").aliases == {ACTIVE: 1}
        store.close()
    assert cut, "no kill came while the migration ran"
    print(f"{cut} of {KILLS} were cut off before the store was open")


def old_database(url: str) -> str:
    """A database as the first program left it, with one version of a class."""
    engine = make_engine(locate(url), for_migration=True)
    data, sha256 = tensor_codec.encode_embedding(np.ones((2, 3), np.float32))
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        command.upgrade(schema.alembic_config(connection), "0001")
        when = "2026-11-23 10:00:00.000000" if connection.dialect.name == "sqlite" else "2026-11-23 10:00:00+00:00"
        for statement in (
            "INSERT INTO tokens (id, connection, project, class_name, last_number, created_at) "
            "VALUES (1, 'default', '1', 'cat', 1, :when)",
            "INSERT INTO token_versions (id, token_id, number, fingerprint, embedding, sha256, recipe, metrics, state, "
            "created_by, created_at) VALUES (1, 1, 1, '{\"space\": \"a\"}', :data, :sha256, '{}', '{}', 'unproven', 'old', :when)",
            "INSERT INTO token_aliases (token_id, alias, number, updated_at) VALUES (1, 'active', 1, :when)",
        ):
            given = {"when": when, "data": data, "sha256": sha256}
            connection.execute(text(statement), {k: v for k, v in given.items() if f":{k}" in statement})
    engine.dispose()
    return url
