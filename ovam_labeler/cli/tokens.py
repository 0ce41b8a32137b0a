"""``ovam-labeler tokens``: look into the registry."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from ovam_labeler.cli.common import CONNECTION, PROJECT, application, out, print_json, scope_of
from token_store.entities import TokenVersion

app = typer.Typer(help="Learned tokens: list, show.", no_args_is_help=True, rich_markup_mode=None)


def _version_json(version: TokenVersion) -> dict[str, Any]:
    return {
        "class_name": version.class_name,
        "scope": str(version.scope),
        "version": version.number,
        "state": version.state,
        "aliases": list(version.aliases),
        "fingerprint": dict(version.fingerprint),
        "shape": list(version.embedding.shape),
        "sha256": version.sha256,
        "recipe": dict(version.recipe),
        "metrics": dict(version.metrics),
        "source_corrections": list(version.source_corrections),
        "parent_version": version.parent_version,
        "created_by": version.created_by,
        "created_at": version.created_at.isoformat(),
    }


@app.command("list")
def list_tokens(
    name: str = typer.Option("", "--name", help="Only class names that contain this text."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """All classes that have a token, of every scope unless one is given."""
    scope = scope_of(connection, project) if connection is not None or project is not None else None
    with application() as application_:
        tokens = application_.store.list_tokens(scope, name)
    if json_output:
        print_json(
            [
                {
                    "class_name": t.class_name,
                    "scope": str(t.scope),
                    "versions": t.versions,
                    "aliases": dict(t.aliases),
                    "created_at": t.created_at.isoformat(),
                }
                for t in tokens
            ]
        )
        return
    if not tokens:
        out.print(
            "No tokens yet: correct a mask in the labeling tool, or run `ovam-labeler learn IMAGE MASK --label NAME`.",
            markup=False,
        )
        return
    table = Table("class", "scope", "versions", "active", "since")
    for t in tokens:
        active = t.aliases.get("active")
        table.add_row(
            *(
                Text(c)
                for c in (
                    t.class_name,
                    str(t.scope),
                    str(t.versions),
                    "-" if active is None else f"v{active}",
                    f"{t.created_at:%Y-%m-%d %H:%M}",
                )
            )
        )
    out.print(table)


@app.command("show")
def show(
    name: str = typer.Argument(..., metavar="NAME", help="The class's name."),
    version: str | None = typer.Option(None, "--version", help="A number or an alias; default: all versions."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """The versions of one class: state, figures, where they come from."""
    scope = scope_of(connection, project)
    with application() as application_:
        store = application_.store
        if version is None:
            versions = store.list_versions(scope, name)
        else:
            versions = [store.get_version(scope, name, int(version) if version.isdigit() else version)]
    if json_output:
        print_json([_version_json(v) for v in versions])
        return
    for v in versions:
        out.print(
            f"{v.class_name!r} v{v.number} ({v.scope}): {v.state}{', ' + ', '.join(v.aliases) if v.aliases else ''}",
            markup=False,
            highlight=False,
        )
        out.print(
            f"  made {v.created_at:%Y-%m-%d %H:%M:%S} UTC by {v.created_by or 'unknown'}, from corrections {list(v.source_corrections)}",
            markup=False,
            highlight=False,
        )
        out.print(
            f"  base model {v.fingerprint.get('model')}, embedding space {str(v.fingerprint.get('space'))[:12]}",
            markup=False,
            highlight=False,
        )
        figures = {k: x for k, x in v.metrics.items() if isinstance(x, int | float | str)}
        out.print(
            "  " + ", ".join(f"{k} {x:.3f}" if isinstance(x, float) else f"{k} {x}" for k, x in figures.items()),
            markup=False,
            highlight=False,
        )
