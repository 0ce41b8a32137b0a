"""``ovam-labeler doctor``: what is wrong, and what to type."""

from __future__ import annotations

from dataclasses import asdict

import typer

from ovam_labeler.cli.common import load_settings, out, print_json


def doctor(json_output: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Check data folder, database, base model, plugins and Label Studio; exit code 1 when something is wrong."""
    from ovam_labeler.checks import run_all

    rows = []
    for check in run_all(load_settings()):
        rows.append(check)
        if json_output:
            continue
        mark, style = {True: ("ok  ", "green"), False: ("FAIL", "red"), None: ("skip", "yellow")}[check.ok]
        out.print(f"{mark} {check.name}: {check.sentence}", style=style, markup=False, highlight=False, soft_wrap=True)
        if check.fix and check.ok is not True:
            out.print(f"     -> {check.fix}", markup=False, highlight=False, soft_wrap=True)
    if json_output:
        print_json([asdict(r) for r in rows])
    if any(r.ok is False for r in rows):
        raise typer.Exit(1)
