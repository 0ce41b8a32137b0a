"""``ovam-labeler demo``: the whole loop on this machine, for a person or played by the program."""

from __future__ import annotations

from pathlib import Path

import typer

from ovam_labeler.cli.common import load_settings
from ovam_labeler.errors import BadRequestError


def demo(
    headless: bool = typer.Option(
        False, "--headless", help="Play the annotator and write a report instead of opening a browser."
    ),
    report: Path | None = typer.Option(
        None, "--report", metavar="FOLDER", help="Folder of report.json and index.html (with --headless)."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Picks concepts, sprites and scenes out of the held-out ones."),
) -> None:
    """Start Label Studio and the backend with a small project; ends with a URL and what to click."""
    if headless:
        if report is None:
            raise BadRequestError("--report is missing; name the folder for report.json and index.html.")
        from ovam_labeler.demo.headless import run_headless

        raise typer.Exit(run_headless(load_settings(), report, seed))
    if report is not None:
        raise BadRequestError("--report goes with --headless; without it the demo opens in the browser.")
    from ovam_labeler.demo.run import run_demo

    raise typer.Exit(run_demo(load_settings(), seed))
