"""The demo's Label Studio: its secrets, its environment, its database template, and how it ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovam_labeler.demo.label_studio_process import LabelStudio, LabelStudioError
from ovam_labeler.demo.signals import ended_by_signals


def studio(tmp_path: Path, name: str = "data") -> LabelStudio:
    return LabelStudio(tmp_path / "venv", tmp_path / name, tmp_path / "files", tmp_path / "cache")


def program(tmp_path: Path, text: str) -> None:
    """Stands in for the installed program, to see how a process that fails is reported."""
    path = tmp_path / "venv" / "bin" / "label-studio"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "label_studio.sqlite3").touch()


def test_credentials_are_random_kept_and_private(tmp_path):
    first, again, other = studio(tmp_path), studio(tmp_path), studio(tmp_path, "other")
    assert (first.password, first.token) == (again.password, again.token)
    assert first.password != other.password
    assert first.token != other.token
    assert stat.S_IMODE((tmp_path / "data" / "credentials").stat().st_mode) == 0o600
    assert len(first.token) == 40


def test_environment_is_its_own(tmp_path, monkeypatch):
    for name in ("LABEL_STUDIO_HOST", "DJANGO_DB", "OVAM_WEBHOOK_SECRET", "PYTHONPATH"):
        monkeypatch.setenv(name, "ours")
    found = studio(tmp_path)
    environ = found.environ()
    assert "OVAM_WEBHOOK_SECRET" not in environ
    assert "PYTHONPATH" not in environ
    assert environ["LABEL_STUDIO_HOST"] == found.url
    assert environ["DJANGO_DB"] == "sqlite"
    assert environ["USE_DEFAULT_BANNED_SUBNETS"] == "false"
    assert environ["USER_ADDITIONAL_BANNED_SUBNETS"] == "169.254.0.0/16"
    assert environ["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "true"
    assert found.url.startswith("http://127.0.0.1:")


def test_not_installed_says_what_to_type(tmp_path):
    with pytest.raises(LabelStudioError, match="make install-label-studio"):
        studio(tmp_path).start()


def test_a_process_that_ends_early_is_reported_with_its_log(tmp_path):
    program(tmp_path, "print('no such setting'); raise SystemExit(3)")
    found = studio(tmp_path)
    with pytest.raises(LabelStudioError, match=r"ended while starting; see .*label-studio\.log"):
        found.start()
    found.stop()
    assert "no such setting" in found.log.read_text()


def test_silence_is_given_up_and_the_process_ended(tmp_path):
    program(tmp_path, "import time; time.sleep(60)")
    found = studio(tmp_path)
    with pytest.raises(LabelStudioError, match="did not answer"):
        found.start(timeout=1.0)
    assert found.pid is None


def test_sigterm_unwinds_blocks():
    code = (
        "import time\n"
        "from ovam_labeler.demo.signals import ended_by_signals\n"
        "try:\n"
        "    with ended_by_signals():\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(30)\n"
        "except KeyboardInterrupt:\n"
        "    print('unwound', flush=True)\n"
    )
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "unwound\n"
    assert process.returncode == 0


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before
