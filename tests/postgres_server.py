"""A real PostgreSQL for tests: made in a folder of its own, on a free port of 127.0.0.1, ended with the session.

It keeps its durability settings (``fsync``, ``synchronous_commit``): the store checks them.  Where PostgreSQL is not installed
it is installed (root on Debian); else tests are skipped, or fail where ``OVAM_REQUIRE_POSTGRES`` is set (CI).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

USER = "ovam"

#: Below this much free space a memory file system is left alone.
_ROOM = 2 << 30


def scratch() -> str | None:
    """A folder in memory where there is room: databases sync after each transaction, and tests make thousands.

    Processes are killed in tests, the machine is not, so memory keeps what a disk would.  None = the usual place.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM
    return str(memory) if roomy else None


class NoPostgresError(Exception):
    """PostgreSQL is not there and cannot be installed."""


def find_programs() -> Path | None:
    """Folder of ``initdb`` and ``postgres``, the newest version first."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -float(p.parent.name))
    on_path = shutil.which("initdb")
    if on_path is not None:
        places.append(Path(on_path).resolve().parent)
    return next((p for p in places if (p / "initdb").is_file() and (p / "postgres").is_file()), None)


def programs() -> Path:
    """As :func:`find_programs`, installing it where that is possible.  Raises NoPostgresError."""
    found = find_programs()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "postgresql"]):
            subprocess.run(["apt-get", *command], env=environment, capture_output=True, check=False)
        found = find_programs()
    if found is None:
        raise NoPostgresError("PostgreSQL is not installed: type `apt-get install postgresql`.")
    return found


class PostgresServer:
    """One running server.  ``url`` names its maintenance database; :meth:`database` makes databases in it."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """Args: settings of the server, besides those it needs to be reached."""
        self._settings = dict(settings or {})
        self._bin = programs()
        self._folder = folder
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://{USER}@127.0.0.1:{self._port}/postgres"

    def start(self, *, fresh: bool = True) -> None:
        data = self._folder / "data"
        if fresh:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._as_user:
                shutil.chown(self._folder, "postgres")
            command = [
                self._bin / "initdb",
                "-A",
                "trust",
                "-N",
                "-U",
                USER,
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-D",
                data,
            ]
            done = subprocess.run([*self._as_user, *map(str, command)], capture_output=True, cwd="/", check=False)
            if done.returncode != 0:
                raise RuntimeError(done.stderr.decode())
        options = {
            "port": self._port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            **self._settings,
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, str(self._bin / "postgres"), "-D", str(data), *arguments],
                stdout=log,
                stderr=log,
                cwd="/",
            )
        # A session that is killed cannot stop its server: whoever holds this pipe's other end is gone then.
        script = 'read -r _; kill -INT "$(head -n 1 "$0" 2>/dev/null)" 2>/dev/null'
        self._watch = subprocess.Popen(["sh", "-c", script, str(data / "postmaster.pid")], stdin=subprocess.PIPE)
        self._wait()

    def stop(self) -> None:
        """Fast shutdown of the server's own process; children of it end with it."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 2)
        assert self._process is not None and self._watch is not None and self._watch.stdin is not None
        self._process.wait(60)
        self._watch.stdin.close()
        self._watch.wait(10)

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """URL of a new database, dropped at the end."""
        name = f"ovam_{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url.rpartition("/")[0] + f"/{name}"
        finally:
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _wait(self) -> None:
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.05)


@contextmanager
def running(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """A server in a temporary folder of its own, gone at the end; ``settings`` as for :class:`PostgresServer`."""
    with tempfile.TemporaryDirectory(prefix="ovam-postgres-", dir=scratch(), ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)  # The server's user must be able to pass through it.
        server = PostgresServer(Path(name) / "server", settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
