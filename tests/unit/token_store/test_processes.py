"""Several processes, killed processes, a full disk: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from token_store import open_store
from token_store.entities import Scope

SCOPE = Scope("default", "1")

PRELUDE = """
import os, sys, time
import numpy as np
from token_store import open_store
from token_store.contract import StoreError, StoreFullError
from token_store.entities import NewCorrection, NewTokenVersion, Scope
path, name = sys.argv[1:3]
scope = Scope("default", "1")
def version(width=768):
    return NewTokenVersion({"space": "a"}, np.ones((2, width), np.float32), {}, {}, created_by=name)
def correction(n):
    return NewCorrection(scope, f"{name}-{n}", "2026-01-01T00:00:00Z", "1", "x.png", {"x": "y" * 20000}, ("cat",))
"""

HAMMER = """
print("ready", flush=True)
sys.stdin.readline()
store = open_store(path)
for n in range(25):
    print(store.add_version(scope, "cat", version(), aliases=["active"]).number, flush=True)
store.close()
"""

WRITE_FOR_EVER = """
store = open_store(path)
for n in range(100000):
    made, job, fresh = store.add_correction(correction(n))
    print("correction", made.annotation_id, flush=True)
    print("version", store.add_version(scope, "cat", version(), aliases=["active"]).number, flush=True)
"""

ONE_CORRECTION = """
store = open_store(path)
store.add_correction(correction(0))
os.kill(os.getpid(), 9)
"""

FULL = """
import resource
store = open_store(path)
store.add_correction(correction(0))
limit = 2_000_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
made = 0
try:
    while made < 200:
        store.add_version(scope, "cat", version(20000), aliases=["active"])
        made += 1
except StoreFullError as error:
    print("full:", error)
try:
    store.add_correction(NewCorrection(scope, "big", "u", "1", "x", {"x": "y" * 3000000}, ("cat",)))
except StoreFullError as error:
    print("full:", error)
print("left", made, len(store.list_versions(scope, "cat")), len(store.list_corrections(scope)), len(store.list_jobs()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("next", store.add_version(scope, "cat", version()).number, store.check())
"""

FORK = """
store = open_store(path)
store.add_correction(correction(0))
child = os.fork()
if child == 0:
    try:
        store.add_correction(correction(1))
    except StoreError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(store.add_correction(correction(2))[2], store.check())
"""


def start(script: str, path: Path, name: str = "w") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + script, str(path), name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=os.getcwd(), **pipes)  # type: ignore[call-overload, no-any-return]


def finish(script: str, path: Path) -> str:
    process = start(script, path)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return output


def test_processes_open_a_new_store_at_once_and_lose_no_number(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.db"
    processes = [start(HAMMER, path, f"p{n}") for n in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    numbers = []
    for process in processes:
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        numbers += [int(line) for line in output.split()]
    assert sorted(numbers) == list(range(1, 101))
    store = open_store(path)
    versions = store.list_versions(SCOPE, "cat")
    assert [version.number for version in versions] == list(range(1, 101))
    assert [version.number for version in versions if version.aliases] == [100]
    assert store.check() == []
    store.close()


def test_killed_right_after_the_answer_the_correction_is_there(tmp_path: Path) -> None:
    process = start(ONE_CORRECTION, tmp_path / "a.db")
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    store = open_store(tmp_path / "a.db")
    (correction,) = store.list_corrections(SCOPE)
    assert correction.annotation_id == "w-0"
    job = store.claim_job("after restart")
    assert job is not None
    assert job.payload["correction_id"] == correction.id
    store.close()


def test_killed_at_any_moment_the_store_is_whole(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.db", random.Random(1)
    acknowledged: list[list[str]] = []
    for round_ in range(4):
        process = start(WRITE_FOR_EVER, path, f"round{round_}")
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.4))
        process.kill()
        rest, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        # A last line without its newline was cut by the kill.
        acknowledged += [line.split() for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]
        store = open_store(path)
        assert store.check() == []
        stored = {correction.annotation_id for correction in store.list_corrections(SCOPE, limit=100_000)}
        assert {what for kind, what in acknowledged if kind == "correction"} <= stored
        # Correction and job are one transaction.
        assert len(store.list_jobs(limit=100_000)) == len(stored)
        versions = store.list_versions(SCOPE, "cat")
        assert [version.number for version in versions] == list(range(1, len(versions) + 1))
        assert {int(what) for kind, what in acknowledged if kind == "version"} <= {v.number for v in versions}
        assert [version.number for version in versions if version.aliases] == ([len(versions)] if versions else [])
        store.close()
    assert len(acknowledged) >= 4


def test_a_file_size_limit_is_a_full_disk_and_nothing_is_half_written(tmp_path: Path) -> None:
    lines = finish(FULL, tmp_path / "a.db").splitlines()
    assert lines[0].startswith("full: The disk or quota")
    assert lines[1].startswith("full: The disk or quota")
    _, made, versions, corrections, jobs = lines[2].split()
    assert int(made) >= 1
    assert (versions, corrections, jobs) == (made, "1", "1")
    assert lines[3] == f"next {int(made) + 1} []"


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(mount)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        script = FULL.replace("resource.setrlimit", "(lambda *_: None)")
        script = script.replace('print("next"', 'os.remove(path + ".ballast"); print("next"')
        Path(f"{mount}/a.db.ballast").write_bytes(bytes(100_000))
        lines = finish(script, mount / "a.db").splitlines()
        assert lines[0].startswith("full: The disk or quota")
        assert lines[1].startswith("full: The disk or quota")
        _, made, versions, corrections, jobs = lines[2].split()
        assert (versions, corrections, jobs) == (made, "1", "1")
        assert lines[3] == f"next {int(made) + 1} []"
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_store_carried_over_a_fork_is_refused(tmp_path: Path) -> None:
    lines = finish(FORK, tmp_path / "a.db").splitlines()
    assert "opened before a fork" in lines[0]
    assert lines[1] == "True []"
