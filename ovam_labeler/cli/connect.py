"""``ovam-labeler connect`` and ``connections``: Label Studios and their projects."""

from __future__ import annotations

import json
import os
from typing import Any

import typer

from ovam_labeler.cli.common import load_settings, out, print_json
from ovam_labeler.errors import BadRequestError


def connect(
    url: str = typer.Option(..., "--url", help="Label Studio's address."),
    project: int = typer.Option(..., "--project", help="The project's id (the number in its address)."),
    backend_url: str = typer.Option(
        "http://127.0.0.1:9090", "--backend-url", help="Where Label Studio reaches this server."
    ),
    token: str = typer.Option(
        "", "--token", help="Label Studio's token; better in OVAM_CONNECT_TOKEN, which no process list shows."
    ),
    name: str = typer.Option("default", "--name", help="Name of the connection; each Label Studio needs its own."),
    option: list[str] = typer.Option([], "--option", help="Project option as KEY=JSON; may be given again."),
    uncertainty: bool = typer.Option(False, "--uncertainty", help="Have the most doubtful tasks come first."),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Wire a project of a Label Studio to this server: backend, webhook with its secret, options.  Done again, it mends."""
    from ovam_labeler.tools.label_studio.connect import Wish
    from ovam_labeler.tools.label_studio.connect import connect as wire

    settings = load_settings()
    given = token or os.environ.get("OVAM_CONNECT_TOKEN", "")
    if not given and settings.label_studio_token is not None:
        given = settings.label_studio_token.get_secret_value()
    wish = Wish(url, given, project, backend_url, name, dict(_pair(text) for text in option), uncertainty)
    steps = wire(settings, wish)
    if json_output:
        print_json({"connection": name, "project": project, "steps": steps})
        return
    for step in steps:
        out.print(step, markup=False, highlight=False, soft_wrap=True)


def connections(
    remove: str = typer.Option("", "--remove", help="Forget this stored connection."),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """List the Label Studios this server knows, without their tokens and secrets."""
    from ovam_labeler.tools.label_studio.connections import Connections

    known = Connections(load_settings())
    if remove:
        known.remove(remove)
    stored = known.stored()
    rows = []
    for name in known.names():
        row = stored.get(name)
        backend_url = row.backend_url if row else ""
        rows.append(
            {"name": name, "url": known.client(name).url, "backend_url": backend_url, "stored": row is not None}
        )
    if json_output:
        print_json(rows)
        return
    for line in rows:
        out.print(f"{line['name']}: {line['url']}", markup=False, highlight=False, soft_wrap=True)


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise BadRequestError(f"The option '{text}' must be KEY=JSON, such as overlap=\"independent\" or push=20.")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
