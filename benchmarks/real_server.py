"""Our server as a user starts it, in a process group of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

_MARK = "Listening at http://127.0.0.1:"


@contextmanager
def real_server(data_dir: Path, log: Path, environment: dict[str, str], patience: float = 180.0) -> Iterator[str]:
    """The server's URL, once the base model is ready; ended with SIGTERM.

    Raises:
        RuntimeError: it ended or did not become ready; the message names the log.
    """
    root = Path(__file__).resolve().parents[1]
    own = {k: v for k, v in os.environ.items() if not k.startswith("OVAM_")}
    own |= {"OVAM_DATA_DIR": str(data_dir), "PYTHONPATH": str(root)} | environment
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ovam_labeler", "serve", "--port", "0"],
            env=own,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + patience
        while not (url := _ready(log)):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The server did not become ready; see {log}.")
            time.sleep(0.2)
        yield url
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _ready(log: Path) -> str:
    text = log.read_text("utf-8", "replace")
    if _MARK not in text:
        return ""
    url = "http://127.0.0.1:" + text.split(_MARK, 1)[1].split()[0]
    try:
        return url if requests.get(f"{url}/", timeout=2).json().get("state") == "ready" else ""
    except (requests.RequestException, ValueError):
        return ""
