"""``label-studio-ml init`` and ``start`` as a user types them, in label-studio-ml's own environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import requests
from server_process import ROOT, ServerProcess, wait_for

from ovam_labeler.demo.label_studio_process import free_port
from token_store import open_store

ENVIRONMENT = ROOT / ".venv-label-studio-ml"

#: The whole of what ``label-studio-ml init`` is given (docs/label_studio_ml.md).
MODEL = "from ovam_labeler.tools.label_studio.ml_adapter import OvamModel\n"


class MlServerProcess(ServerProcess):
    """The adapter hosted by ``label-studio-ml start``; use as a context manager.

    ``idle`` asks the store, since label-studio-ml's server knows nothing of jobs.
    """

    def __init__(self, folder: Path, log: Path, **environment: str) -> None:
        super().__init__(folder / "state", log, **environment)
        # `start` runs whatever `python` comes first, as after `activate`.
        self._environment["PATH"] = f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self._folder = folder

    def start(self) -> MlServerProcess:
        program = str(ENVIRONMENT / "bin" / "label-studio-ml")
        if not (self._folder / "backend").exists():
            (self._folder / "model.py").write_text(MODEL, encoding="utf-8")
            command = [program, "init", "backend", "--script", "model.py:OvamModel"]
            subprocess.run(
                command, cwd=self._folder, env=self._environment, check=True, capture_output=True, timeout=120
            )
        port = free_port()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "start", "backend", "--host", "127.0.0.1", "--port", str(port), "--log-level", "INFO"],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.url = f"http://127.0.0.1:{port}"
        wait_for(lambda: self._healthy() or self._ended(), "label-studio-ml's /health")
        assert not self._ended(), self.text()
        return self

    def stop(self) -> None:
        """`start` is a shell over the server, and ends alone: the whole group is ended."""
        if not self._ended():
            self.kill()

    def processes(self) -> set[int]:
        """Pids of the whole group: the shell's, the server's, and of what these started."""
        assert self._process is not None
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self._process.pid:
                found.add(int(stat.parent.name))
        return found

    def idle(self) -> bool:
        store = open_store(f"sqlite:///{self._folder / 'state' / 'ovam.sqlite3'}", migrate=False)
        try:
            return not store.list_jobs(states=("queued", "running"), kinds=("learn", "review"), limit=1)
        finally:
            store.close()

    def _healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except requests.RequestException:
            return False
