"""``ovam-labeler``: the command line.  One module per noun; this one joins them and is the CLI's error edge."""

from __future__ import annotations

import logging
import os
import sys

import typer

from ovam_labeler import __version__
from ovam_labeler.cli import (
    cache,
    connect,
    cvat,
    database,
    demo,
    doctor,
    generate,
    learn,
    predict,
    report,
    serve,
    tokens,
    verify,
)
from ovam_labeler.errors import OvamError

app = typer.Typer(
    name="ovam-labeler",
    help="Proposes segmentation masks for any class word, learns a class from one corrected mask.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("generate")(generate.generate)
app.command("predict")(predict.predict)
app.command("learn")(learn.learn)
app.add_typer(tokens.app, name="tokens")
app.add_typer(database.app, name="db")
app.add_typer(cache.app, name="cache")
app.add_typer(cvat.app, name="cvat")
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("verify")(verify.verify)
app.command("connect")(connect.connect)
app.command("connections")(connect.connections)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """State lives under OVAM_DATA_DIR; every setting is an OVAM_ variable (docs/settings.md)."""


def run() -> None:
    """Entry point: runs the app; an :class:`OvamError` is one sentence on stderr and the error's exit code."""
    # The hubs' own progress bars and notices would mix with ours; their errors still come through.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=os.environ.get("OVAM_LOG_LEVEL", "WARNING").upper(), format="%(levelname)s %(message)s")
    try:
        app()
    except OvamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
