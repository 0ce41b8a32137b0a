"""``ovam-labeler cvat``: corrections out of CVAT's tasks."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import typer

from ovam_labeler.cli.common import application, out, print_json, progress_bar, scope_of
from ovam_labeler.errors import BadRequestError, FetchError, ModelError

if TYPE_CHECKING:
    from cvat_sdk.core.client import Client

app = typer.Typer(help="Corrections out of CVAT's tasks; proposals: docs/cvat.md.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Corrections out of CVAT's tasks; proposals: docs/cvat.md."""


@app.command("pull")
def pull_command(
    task: int = typer.Argument(..., metavar="TASK", help="The task's number."),
    url: str = typer.Option("http://localhost:8080", "--url", help="CVAT's address."),
    project: str | None = typer.Option(
        None, "--project", help="Project of the tokens' scope, as given to the function; default: global tokens."
    ),
    connection: str = typer.Option("cvat", "--connection", help="The other part of the scope, for several CVATs."),
    user: str | None = typer.Option(
        None, "--user", help="Log in by name, with the password in OVAM_CVAT_PASSWORD or asked for."
    ),
    deletions: bool = typer.Option(
        False,
        "--deletions",
        help="Proposals that are gone from a completed job say that their class is not there; for tasks that "
        "auto-annotate has uploaded proposals to.",
    ),
    learn: bool = typer.Option(True, "--learn/--no-learn", help="Learn them now, or leave it to a server."),
    json_output: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> None:
    """Store what annotators drew and changed in TASK, and learn from it.

    Done again, it stores what has changed since.  The token of CVAT is read from CVAT_ACCESS_TOKEN, unless --user is
    given.
    """
    try:
        from cvat_sdk.core.exceptions import CvatSdkException
        from cvat_sdk.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        from ovam_labeler.tools.cvat.pull import pull
    except ImportError as error:
        raise ModelError("CVAT's SDK is not installed; type `pip install 'ovam-labeler[cvat]'`.") from error
    from ovam_labeler.tools.decoders import built_in_decoders

    scope = scope_of(connection if project is not None else None, project)
    with application() as joined, progress_bar("Reading the task", quiet=json_output) as progress:
        decoders: Any = joined.decoders
        decoders.update(built_in_decoders(joined.settings))
        try:
            with _client(url, user) as client:
                pulled = pull(joined, decoders["cvat"], client, task, scope, deletions=deletions)
        except ApiException as error:
            raise FetchError(f"CVAT at {url} answered {error.status} {error.reason}.") from error
        except HTTPError as error:
            raise FetchError(f"CVAT at {url} is not reachable; is it running?") from error
        except CvatSdkException as error:
            raise FetchError(f"CVAT's SDK cannot read the task {task}: {error}.") from error
        numbers = [job.id for _, job in pulled.stored if job is not None]
        if learn and numbers:
            joined.start_worker()
            while waiting := [n for n in numbers if joined.store.get_job(n).state in ("queued", "running")]:
                progress(1 - len(waiting) / len(numbers), "Learning")
                time.sleep(0.2)
        corrections = [joined.store.get_correction(c.id) for c, _ in pulled.stored]
    if json_output:
        print_json(
            {
                "stored": [
                    {"id": c.id, "frame": c.annotation_id, "labels": list(c.labels), "state": c.state, "note": c.note}
                    for c in corrections
                ],
                "unchanged": pulled.unchanged,
                "retracted": [c.id for c in pulled.retracted],
                "notes": pulled.notes,
            }
        )
        return
    for correction in corrections:
        line = f"Frame {correction.annotation_id.partition('@')[2]}: {', '.join(correction.labels)}: {correction.state}"
        out.print(f"{line}. {correction.note}".rstrip(" ."), markup=False, highlight=False)
    out.print(
        f"{len(corrections)} corrections stored, {pulled.unchanged} unchanged, {len(pulled.retracted)} taken back.",
        markup=False,
        highlight=False,
    )
    for note in pulled.notes:
        out.print(note, markup=False, highlight=False)


def _client(url: str, user: str | None) -> Client:
    from cvat_sdk import make_client

    if user is not None:
        password = os.environ.get("OVAM_CVAT_PASSWORD") or typer.prompt("Password of CVAT", hide_input=True, err=True)
        return make_client(url, credentials=(user, password))
    token = os.environ.get("CVAT_ACCESS_TOKEN")
    if not token:
        raise BadRequestError(
            "CVAT_ACCESS_TOKEN is not set; set it to a personal access token of CVAT, or give --user."
        )
    return make_client(url, access_token=token)
