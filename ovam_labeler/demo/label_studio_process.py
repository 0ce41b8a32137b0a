"""A Label Studio of its own for demo and tests: its own environment, SQLite, 127.0.0.1, ended by its pid.

The instance may reach private addresses (the backend runs on this machine) and takes legacy tokens; both are off in a
default Label Studio.  The cloud metadata network stays banned.  The first start migrates an empty database (about a
minute); the migrated file is kept as a template without users, so later starts take seconds.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import IO

import requests

from backends.contract import Progress
from ovam_labeler.errors import OvamError

VERSION = "1.23.2"
USERNAME = "annotator@example.com"
_DATABASE = "label_studio.sqlite3"
#: Rows of Django's migration table when this version's database is complete; only the progress bar uses it.
_MIGRATIONS = 396
_MIGRATE = "from label_studio import server; server._setup_env(); server._apply_database_migrations()"  # what `start` does first


class LabelStudioError(OvamError):
    """Label Studio could not be installed or started; the sentence ends with the log's name."""

    code = "label_studio"
    status = 503


def find_environment(data_dir: Path) -> Path:
    """Label Studio's virtual environment: ``.venv-label-studio`` beside the current folder's project, else one in the
    data folder (which may not exist yet)."""
    local = Path.cwd() / ".venv-label-studio"
    return local if (local / "bin" / "label-studio").exists() else data_dir / "label-studio-venv"


def ensure_installed(environment: Path, progress: Progress | None = None) -> None:
    """Install Label Studio into its own environment unless it is there.

    Raises:
        LabelStudioError: pip failed; the message holds its last line.
    """
    if (environment / "bin" / "label-studio").exists():
        return
    _report(progress, 0.05, f"Making {environment}")
    for fraction, step, command in (
        (0.1, "Making the environment", [sys.executable, "-m", "venv", str(environment)]),
        (
            0.2,
            f"Installing Label Studio {VERSION} (about 1 GB, a minute or two)",
            [
                str(environment / "bin" / "pip"),
                "install",
                "--quiet",
                "--disable-pip-version-check",
                f"label-studio=={VERSION}",
            ],
        ),
    ):
        _report(progress, fraction, step)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
            raise LabelStudioError(f"{step} failed: {last[0]}")
    _report(progress, 1.0, f"Label Studio {VERSION} is installed")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LabelStudio:
    """One Label Studio process.  Use as a context manager, or ``start`` and ``stop``.

    Args:
        environment: its virtual environment (see :func:`ensure_installed`).
        data_dir: its data folder; kept, so a later start finds the projects again.
        files: folder it may serve as local files.
        cache: where the migrated template is kept.
        port: 0 picks a free one.
    """

    def __init__(self, environment: Path, data_dir: Path, files: Path, cache: Path, *, port: int = 0) -> None:
        self.environment, self.data_dir, self.files, self.cache = environment, data_dir, files, cache
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.username = USERNAME
        self.password, self.token = _credentials(data_dir)
        self.log = data_dir / "label-studio.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, progress: Progress | None = None, *, timeout: float = 300.0) -> None:
        """Start and wait until it answers.

        Raises:
            LabelStudioError: not installed, ended early, or silent for ``timeout`` seconds.
        """
        program = self.environment / "bin" / "label-studio"
        if not program.exists():
            raise LabelStudioError(
                f"Label Studio is not installed in {self.environment}; run `make install-label-studio`."
            )
        self.files.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        self._provide_database(progress, timeout)
        _report(progress, 0.8, "Starting Label Studio")
        arguments = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port)]
        self._spawn([str(program), *arguments])
        while not self._healthy():
            self._check(begin, timeout)
            time.sleep(0.3)
        _report(progress, 1.0, f"Label Studio answers at {self.url}")

    def stop(self, timeout: float = 15.0) -> None:
        """End the process that :meth:`start` began, gently, then hard; nothing else is touched."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log_file:
            self._log_file.close()
            self._log_file = None

    def __enter__(self) -> LabelStudio:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environ(self) -> dict[str, str]:
        """The process's environment: ours without anything that configures Label Studio, Django or Python, plus its own."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        return ours | {
            "LABEL_STUDIO_USERNAME": self.username,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir.absolute()),
            "LABEL_STUDIO_HOST": self.url,
            "DJANGO_DB": "sqlite",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "LOG_LEVEL": "INFO",
            "USE_DEFAULT_BANNED_SUBNETS": "false",
            "USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16",
            "LOCAL_FILES_SERVING_ENABLED": "true",
            "LOCAL_FILES_DOCUMENT_ROOT": str(self.files.absolute()),
            "LATEST_VERSION_CHECK": "false",
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }

    def _provide_database(self, progress: Progress | None, timeout: float) -> None:
        """Copy the migrated template, making it first where there is none."""
        database = self.data_dir / _DATABASE
        if database.exists():
            return
        template = self.cache / f"label-studio-{VERSION}.sqlite3"
        if not template.exists():
            _report(progress, 0.0, "Preparing Label Studio's database (about a minute, the first time only)")
            begin = time.monotonic()
            self._spawn([str(self.environment / "bin" / "python"), "-c", _MIGRATE])
            process = self._process
            assert process is not None  # _spawn has just set it
            done = 0
            while process.poll() is None:
                if time.monotonic() - begin > timeout:
                    self._check(begin, timeout)
                done = max(done, _migrated(database))
                _report(progress, 0.75 * min(1.0, done / _MIGRATIONS), "Preparing Label Studio's database")
                time.sleep(0.5)
            if process.returncode:
                raise LabelStudioError(f"Label Studio's database could not be made; see {self.log}.")
            self.stop()
            self.cache.mkdir(parents=True, exist_ok=True)
            partial = template.with_name(f"{template.name}.{os.getpid()}")
            shutil.copy2(database, partial)
            partial.replace(template)  # another process may be doing the same: the rename is atomic
        else:
            shutil.copy2(template, database)

    def _spawn(self, command: list[str]) -> None:
        self._log_file = self.log.open("ab")
        # A session of its own: Ctrl-C in our terminal must reach us alone, so that we can stop in order.
        self._process = subprocess.Popen(
            command,
            env=self.environ(),
            cwd=self.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _healthy(self) -> bool:
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy of the environment cannot reach this machine's loopback
                return session.get(f"{self.url}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def _check(self, begin: float, timeout: float) -> None:
        if self._process is None or self._process.poll() is not None:
            raise LabelStudioError(f"Label Studio ended while starting; see {self.log}.")
        if time.monotonic() - begin > timeout:
            self.stop()
            raise LabelStudioError(f"Label Studio did not answer at {self.url} within {timeout:.0f} s; see {self.log}.")


_FOREIGN = ("LABEL_STUDIO_", "HEARTEX_", "DJANGO_", "PYTHON", "VIRTUAL_ENV", "OVAM_", "COVERAGE")


def _credentials(data_dir: Path) -> tuple[str, str]:
    """Password and legacy token of this data folder, made at random once and readable by the owner only."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "credentials"
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(9)}\n{secrets.token_hex(20)}\n")
    password, token = path.read_text(encoding="ascii").split()
    return password, token


def _migrated(database: Path) -> int:
    """How many migrations the database has, 0 while it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.2)) as connection:
            return int(connection.execute("select count(*) from django_migrations").fetchone()[0])
    except sqlite3.Error:
        return 0


def _report(progress: Progress | None, fraction: float, text: str) -> None:
    if progress is not None:
        progress(fraction, text)
