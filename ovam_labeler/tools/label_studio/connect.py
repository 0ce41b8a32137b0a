"""Wires a Label Studio project to this server: backend, webhook with its secret, options, ordering.  Done again, it mends."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ovam_labeler.errors import BadRequestError, FetchError, OvamError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connections import DEFAULT, Connections, StoredConnection
from ovam_labeler.tools.label_studio.doctor_row import ALLOW_PRIVATE
from ovam_labeler.tools.label_studio.extra_params import read_extra_params
from ovam_labeler.tools.label_studio.push import UNCERTAINTY, follow_title
from ovam_labeler.tools.label_studio.security import SECRET_HEADER

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


@dataclass(frozen=True, slots=True)
class Wish:
    """What to connect.

    Attributes:
        url, token: of Label Studio.
        project: its id there.
        backend_url: where Label Studio reaches this server, without ``/c/<name>``.
        name: of the connection; each Label Studio needs one of its own.
        options: project options, stored as the backend's extra params.
        uncertainty: have the most doubtful tasks come first.
    """

    url: str
    token: str
    project: int
    backend_url: str
    name: str = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: bool = False


def connect(settings: Settings, wish: Wish) -> list[str]:
    """Do it; returns one sentence a step.

    Raises:
        BadRequestError: a name, address or option is not usable; nothing was changed.
        TokenRefusedError: Label Studio does not take the token; nothing was changed.
        FetchError: Label Studio refuses a step; the sentence says what to do.
    """
    if not _NAME.match(wish.name):
        raise BadRequestError(
            f"The connection's name is '{wish.name}'; letters, digits, dots, dashes and underscores are allowed."
        )
    _, notes = read_extra_params(settings, wish.options)
    if notes:
        raise BadRequestError(notes[0])
    connections = Connections(settings)
    other = connections.stored().get(wish.name)
    if other is not None and other.url != wish.url.rstrip("/"):
        raise BadRequestError(
            f"The connection '{wish.name}' is that of {other.url}; give this Label Studio another --name, or remove that one."
        )
    base = wish.backend_url.rstrip("/")
    stored = StoredConnection(
        name=wish.name,
        url=wish.url.rstrip("/"),
        token=wish.token,
        secret=connections.secret(wish.name) or secrets.token_urlsafe(24),
        backend_url=base if wish.name == DEFAULT else f"{base}/c/{wish.name}",
    )
    client = _client(settings, stored)
    client.call("GET", "/api/current-user/whoami")
    project = client.project(wish.project)
    # Stored first: Label Studio asks this server back while it connects, and the secret must hold by then.
    connections.save(stored)
    steps = [f"Label Studio at {stored.url} is stored as connection '{stored.name}'."]
    steps.append(_backend(client, stored, wish, str(project.get("label_config") or "")))
    steps.append(_webhook(client, stored, wish.project))
    changes: dict[str, Any] = {} if project.get("show_collab_predictions") else {"show_collab_predictions": True}
    if wish.uncertainty and project.get("sampling") != UNCERTAINTY:
        changes["sampling"] = UNCERTAINTY
    if changes:
        client.call("PATCH", f"/api/projects/{wish.project}", json=changes)
        steps.append(f"Project settings: {', '.join(f'{k} = {v}' for k, v in changes.items())}.")
    if wish.uncertainty or project.get("sampling") == UNCERTAINTY:
        (mine,) = [b for b in client.backends(wish.project) if _same(b.get("url"), stored.backend_url)]
        follow_title(client, str(wish.project), str(mine.get("model_version")))
        steps.append("The most doubtful tasks come first; the backend's title is kept at the model version for it.")
    return steps


def _client(settings: Settings, stored: StoredConnection) -> LabelStudioClient:
    from pydantic import SecretStr

    token = SecretStr(stored.token) if stored.token else None
    return LabelStudioClient(settings.model_copy(update={"label_studio_url": stored.url, "label_studio_token": token}))


def _backend(client: LabelStudioClient, stored: StoredConnection, wish: Wish, config: str) -> str:
    fields: dict[str, Any] = {"is_interactive": 'smart="true"' in config}
    if wish.options:
        fields["extra_params"] = dict(wish.options)
    mine = [b for b in client.backends(wish.project) if _same(b.get("url"), stored.backend_url)]
    try:
        if mine:
            client.set_backend(mine[0], **fields)
            return f"The backend {stored.backend_url} was connected already; its options are as wished now."
        client.add_backend(wish.project, stored.backend_url, **fields)
    except FetchError as error:
        if "reserved network address" in str(error):
            raise FetchError(f"{error} Start Label Studio with {ALLOW_PRIVATE}.") from error
        raise
    return f"The backend {stored.backend_url} is connected."


def _webhook(client: LabelStudioClient, stored: StoredConnection, project: int) -> str:
    """One active webhook with the secret.  Deleting a backend leaves its webhook, so there may be several."""
    url = f"{stored.backend_url}/webhook"
    mine = [h for h in client.webhooks(project) if h.get("project") == project and _same(h.get("url"), url)]
    body = {"url": url, "project": project, "is_active": True, "send_payload": True, "send_for_all_actions": True}
    try:
        hook = mine[0] if mine else client.call("POST", "/api/webhooks/", json=body)
    except OvamError as error:
        raise FetchError(
            f"{error} Label Studio makes no webhook to this address, so corrections would never arrive; start it with "
            f"{ALLOW_PRIVATE}."
        ) from error
    for double in mine[1:]:
        client.call("DELETE", f"/api/webhooks/{double['id']}/")
    headers = {**(hook.get("headers") or {}), SECRET_HEADER: stored.secret}
    client.call("PATCH", f"/api/webhooks/{hook['id']}/", json={"headers": headers, "is_active": True})
    return "Its webhook sends every correction, with a secret of this connection's own."


def _same(url: object, wanted: str) -> bool:
    return str(url or "").rstrip("/") == wanted.rstrip("/")
