"""Our server as a user starts it: ``python -m ovam_labeler serve`` in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]


class ServerProcess:
    """One server over a data folder; use as a context manager.

    Args:
        environment: settings as ``OVAM_...`` variables.
    """

    def __init__(self, data_dir: Path, log: Path, **environment: str) -> None:
        self.log = log
        self.url = ""
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("OVAM_")},
            "OVAM_DATA_DIR": str(data_dir),
            "OVAM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        """Start on a free port and wait until /health answers."""
        with self.log.open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ovam_labeler", "serve", "--port", "0"],
                env=self._environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        mark = "Listening at http://127.0.0.1:"
        wait_for(lambda: mark in self._since(before) or self._ended(), "the server's address")
        assert not self._ended(), self.text()
        self.url = "http://127.0.0.1:" + self._since(before).split(mark, 1)[1].split()[0]
        wait_for(lambda: self._healthy() or self._ended(), "the server's /health")
        assert not self._ended(), self.text()
        return self

    def kill(self) -> None:
        """SIGKILL to every process of the server, as a power cut would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and not self._ended():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()

    def status(self) -> dict[str, Any]:
        """What ``/`` says."""
        body: dict[str, Any] = requests.get(f"{self.url}/", timeout=60).json()
        return body

    def idle(self) -> bool:
        jobs = self.status()["jobs"]
        return not jobs["queued"] and not jobs["running"]

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _since(self, position: int) -> str:
        return self.log.read_bytes()[position:].decode("utf-8", "replace")

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except requests.RequestException:
            return False


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    """Wait until a condition holds; fails the test with what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)
