"""What the commands share: the application, a progress bar on stderr, JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ovam_labeler.errors import BadRequestError
from ovam_labeler.settings import Settings

if TYPE_CHECKING:
    from backends.contract import Progress as ProgressCallback
    from ovam_labeler.services import Application
    from token_store.entities import Scope

#: Tables and progress go to stderr or stdout by purpose, so that ``--json`` output can be piped.
out = Console()
err = Console(stderr=True)


def load_settings() -> Settings:
    """Settings of this process.  Raises BadRequestError naming the first bad variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "OVAM_" + "_".join(str(p) for p in first["loc"]).upper()
        # The value is left out: it may be a secret.
        raise BadRequestError(f"{name} is not usable: {first['msg']}.") from None


@contextmanager
def application() -> Iterator[Application]:
    """The joined application, closed at the end.  Imported late: torch takes seconds, ``--help`` must not."""
    from ovam_labeler.application import build_application, translate_errors

    with translate_errors():
        app = build_application(load_settings())
        try:
            yield app
        finally:
            app.close()


@contextmanager
def progress_bar(description: str, *, quiet: bool = False) -> Iterator[ProgressCallback]:
    """A callback (fraction 0..1, sentence) that draws one bar on stderr."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(description, total=1.0)

        def update(fraction: float, message: str) -> None:
            bar.update(task, completed=min(max(fraction, 0.0), 1.0), description=message or description)

        yield update


def scope_of(connection: str | None, project: str | None) -> Scope:
    """Global unless both parts of a project's scope are given."""
    from token_store.entities import Scope

    if (connection is None) != (project is None):
        raise BadRequestError("--connection and --project go together: give both or neither.")
    return Scope.everywhere() if connection is None or project is None else Scope(connection, project)


def project_scope(project: str) -> Scope:
    """``CONNECTION/ID``, or an ``ID`` of the default connection."""
    from token_store.entities import Scope

    connection, slash, number = project.rpartition("/")
    return Scope(connection if slash else "default", number)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


CONNECTION = typer.Option(None, "--connection", help="Labeling-tool connection of the scope; default: global tokens.")
PROJECT = typer.Option(None, "--project", help="Project id of the scope, with --connection.")
