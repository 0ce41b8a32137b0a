"""The Label Studios this server knows: the one of the settings, and those that ``ovam-labeler connect`` stored.

Stored ones live in ``connections.json`` in the data folder, readable by its owner only: their tokens and secrets stay out
of the database, of its backups and of what is exported.  A running server sees a change at its next request.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import SecretStr

from ovam_labeler.errors import NotFoundError, OvamError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient

#: Connection of the bare routes and of the settings.
DEFAULT = "default"

FILE = "connections.json"


@dataclass(frozen=True, slots=True)
class StoredConnection:
    """One Label Studio.

    Attributes:
        name: of the routes ``/c/<name>/...``.
        url, token: its address, and a legacy token or personal access token.
        secret: what its webhooks carry.
        backend_url: where it reaches this server, with ``/c/<name>`` unless it is the default connection.
    """

    name: str
    url: str
    token: str = ""
    secret: str = ""
    backend_url: str = ""

    def __repr__(self) -> str:
        return f"StoredConnection({self.name!r}, {self.url!r})"  # never the token or the secret


class Connections:
    """Clients by connection name.  Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.data_dir / FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._stored: dict[str, StoredConnection] = {}
        self._clients: dict[StoredConnection | None, LabelStudioClient] = {}

    def names(self) -> list[str]:
        """Connections whose Label Studio is known, the settings' first."""
        stored = sorted(self.stored())
        configured = [DEFAULT] if self._settings.label_studio_url else []
        return configured + [name for name in stored if name not in configured]

    def knows(self, name: str) -> bool:
        return name in self.names()

    def client(self, name: str = DEFAULT) -> LabelStudioClient:
        """The connection's client.

        A name that was never stored is another path to the settings' Label Studio, if that is set; without any, the
        client still fetches images from elsewhere, without credentials.
        """
        stored = self.stored()
        key = None if name == DEFAULT and self._settings.label_studio_url else stored.get(name)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = LabelStudioClient(_settings_of(self._settings, key))
            return self._clients[key]

    def secret(self, name: str) -> str:
        """What the connection's webhooks must carry, or ``""``: a stored connection has a secret of its own."""
        own = self.stored().get(name)
        if own is not None and own.secret:
            return own.secret
        return self._settings.webhook_secret.get_secret_value() if self._settings.webhook_secret else ""

    def stored(self) -> Mapping[str, StoredConnection]:
        """By name; read again where the file has changed.

        Raises:
            OvamError: the file is damaged; nothing is guessed about who may send corrections.
        """
        with self._lock:
            try:
                stat = os.stat(self._path)
            except FileNotFoundError:
                self._seen, self._stored = None, {}
                return self._stored
            mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if mark != self._seen:
                self._stored, self._seen = _read(self._path), mark
            return self._stored

    def save(self, connection: StoredConnection) -> None:
        """Store or replace a connection."""
        self._change(lambda rows: rows | {connection.name: connection})

    def remove(self, name: str) -> None:
        """Forget a stored connection.  Raises NotFoundError."""
        if name not in self.stored():
            raise NotFoundError(
                f"There is no stored connection '{name}'; known are {', '.join(self.names()) or 'none'}."
            )
        self._change(lambda rows: {key: row for key, row in rows.items() if key != name})

    def _change(self, change: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._path}.lock"):
            rows = change(dict(_read(self._path) if self._path.exists() else {}))
            text = json.dumps({"version": 1, "connections": [asdict(row) for row in rows.values()]}, indent=1)
            partial = self._path.with_name(f"{FILE}.{os.getpid()}")
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)


def _read(path: Path) -> dict[str, StoredConnection]:
    known = {field.name for field in fields(StoredConnection)}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["connections"]
        found = [StoredConnection(**{k: str(v) for k, v in row.items() if k in known}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OvamError(
            f"The file {path} cannot be read as connections; mend or delete it, then connect again."
        ) from error
    return {row.name: row for row in found}


def _settings_of(settings: Settings, stored: StoredConnection | None) -> Settings:
    if stored is None:
        return settings
    token = SecretStr(stored.token) if stored.token else None
    return settings.model_copy(update={"label_studio_url": stored.url, "label_studio_token": token})
