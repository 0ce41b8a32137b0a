"""``ovam-labeler tokens prune|gc``: put away what nothing needs, then delete it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import typer

from ovam_labeler.cli.common import CONNECTION, PROJECT, print_json, scope_of
from ovam_labeler.cli.tokens_common import DRY_RUN, JSON, WHY, YES, confirm, open_registry, say, scope_json, who
from token_store.entities import VersionRef

#: Lines of a listing before it is cut.
_SHOWN = 20


def prune(
    keep: int = typer.Option(5, "--keep", min=1, help="Versions of each class to keep, the newest."),
    why: str = WHY,
    yes: bool = YES,
    dry_run: bool = DRY_RUN,
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Archive old versions that no alias and no rollback needs.  Nothing is deleted; `tokens gc` deletes later."""
    scope = scope_of(connection, project) if connection is not None or project is not None else None
    with open_registry() as store:
        found = store.prune(scope, keep=keep, who=who(), why=why, dry_run=True)
        if found and not dry_run:
            confirm(f"{_count(found)} would be archived. Archive?", yes)
            found = store.prune(scope, keep=keep, who=who(), why=why or f"pruned to {keep}")
    if json_output:
        print_json({"dry_run": dry_run, "archived": [_ref(v) for v in found]})
        return
    _list(found)
    say(f"{_count(found)} {'would be' if dry_run else 'now'} archived." if found else "Nothing to archive.")


def gc(
    older_than: float = typer.Option(
        30.0,
        "--older-than",
        metavar="DAYS",
        min=0.0,
        max=36_500.0,
        help="Delete what was archived or superseded before.",
    ),
    why: str = WHY,
    yes: bool = YES,
    dry_run: bool = DRY_RUN,
    json_output: bool = JSON,
) -> None:
    """Delete archived versions, and notes of superseded predictions, for good."""
    before = datetime.now(UTC) - timedelta(days=older_than)
    with open_registry() as store:
        found = store.collect_garbage(before=before, who=who(), why=why, dry_run=True)
        if (found.versions or found.served) and not dry_run:
            confirm(
                f"{_count(found.versions)} and {found.served} served predictions would be deleted for good. Delete?",
                yes,
            )
            found = store.collect_garbage(before=before, who=who(), why=why or f"older than {older_than:g} days")
    if json_output:
        print_json({"dry_run": dry_run, "deleted": [_ref(v) for v in found.versions], "served": found.served})
        return
    _list(found.versions)
    say(f"{_count(found.versions)} and {found.served} served predictions {'would be' if dry_run else 'are'} deleted.")


def _ref(one: VersionRef) -> dict[str, object]:
    return {"class_name": one.class_name, **scope_json(one.scope), "version": one.number}


def _count(found: list[VersionRef] | tuple[VersionRef, ...]) -> str:
    return f"{len(found)} version{'' if len(found) == 1 else 's'}"


def _list(found: list[VersionRef] | tuple[VersionRef, ...]) -> None:
    for one in found[:_SHOWN]:
        say(f"  {one.class_name!r} v{one.number} ({one.scope})")
    if len(found) > _SHOWN:
        say(f"  ... and {len(found) - _SHOWN} more")
