"""``ovam-labeler tokens pause|resume``: whether corrections of a class teach it."""

from __future__ import annotations

from ovam_labeler.cli.common import CONNECTION, PROJECT, print_json, scope_of
from ovam_labeler.cli.tokens_common import JSON, NAME, WHY, open_registry, say, scope_json, who
from ovam_labeler.jobs.kinds import REVIEW


def pause(
    name: str = NAME,
    why: str = WHY,
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Stop learning a class: its corrections are kept as evidence, what is in use stays.  The class may be new."""
    _set(name, True, why, connection, project, json_output)


def resume(
    name: str = NAME,
    why: str = WHY,
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Go on learning a class; a running server then learns from what came meanwhile."""
    _set(name, False, why, connection, project, json_output)


def _set(name: str, paused: bool, why: str, connection: str | None, project: str | None, json_output: bool) -> None:
    scope = scope_of(connection, project)
    with open_registry() as store:
        store.pause_class(scope, name, paused, who=who(), why=why, job_kind=REVIEW)
        classes = store.paused_classes(scope)
    if json_output:
        print_json({"class_name": name, **scope_json(scope), "paused": paused, "paused_classes": classes})
        return
    say(
        f"Learning of {name!r} ({scope}) is paused; its corrections are kept as evidence."
        if paused
        else f"Learning of {name!r} ({scope}) goes on."
    )
