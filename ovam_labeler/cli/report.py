"""``ovam-labeler report``: is the assistant helping, class by class; who disagrees."""

from __future__ import annotations

import typer
from rich.table import Table

from ovam_labeler.cli.common import load_settings, out, print_json, project_scope
from ovam_labeler.errors import BadRequestError, NotFoundError


def report(
    project: str = typer.Option("", "--project", help="Only this project: CONNECTION/ID, or ID of the default one."),
    resume: str = typer.Option("", "--resume", help="Have this class of --project propose again."),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Figures of each class and token version from what annotators made of its proposals, and where annotators disagree."""
    from ovam_labeler.disagreements import disagreements
    from ovam_labeler.helping import report as figures
    from ovam_labeler.helping import resume as go_on
    from token_store import open_store

    scope = project_scope(project) if project else None
    store = open_store(load_settings().resolved_database_url())
    try:
        if resume:
            if scope is None:
                raise BadRequestError("--resume needs --project, since every project has classes of its own.")
            if not go_on(store, scope, resume):
                raise NotFoundError(f"The class '{resume}' of project {scope} had not stopped proposing.")
        found = figures(store, scope)
        scopes = [scope] if scope is not None else [p.scope for p in store.list_projects()]
        found["disagreements"] = [row.plain() for where in scopes for row in disagreements(store, where)]
    finally:
        store.close()
    if json_output:
        print_json(found)
        return
    table = Table(title="Is it helping?")
    for head in (
        "project",
        "class",
        "by",
        "proposals",
        "untouched",
        "IoU",
        "deleted",
        "seconds",
        "hurt",
    ):
        table.add_column(head, justify="left" if head in ("project", "class", "by") else "right")
    for row in found["classes"]:
        table.add_row(
            row["scope"],
            row["label"],
            "word" if row["token_version"] is None else f"v{row['token_version']}",
            str(row["proposals"]),
            f"{row['untouched']:.0%}",
            "-" if row["iou"] is None else f"{row['iou']:.2f}",
            f"{row['deleted']:.0%}",
            "-" if row["lead_time"] is None else f"{row['lead_time']:.1f}",
            f"{row['hurt']:.0%}",
        )
    out.print(table)
    for row in found["stability"]:
        count = row["corrections_until_stable"]
        state = "not stable yet" if count is None else f"stable after {count} corrections"
        _say(f"{row['scope']} '{row['label']}': {state} ({row['corrected']} corrected in all).")
    for row in found["quiet"]:
        _say(f"{row['scope']} '{row['label']}' has stopped proposing since {row['since']}: {row['reason']}")
    for row in found["disagreements"]:
        _say(row["sentence"])


def _say(sentence: str) -> None:
    out.print(sentence, markup=False, highlight=False, soft_wrap=True)
