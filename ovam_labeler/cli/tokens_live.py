"""``ovam-labeler tokens promote|rollback|archive|tag``: what is live, and one step back."""

from __future__ import annotations

import typer

from ovam_labeler.cli.common import CONNECTION, PROJECT, print_json, scope_of
from ovam_labeler.cli.tokens_common import (
    JSON,
    NAME,
    VERSION,
    WHY,
    YES,
    confirm,
    number_or_alias,
    open_registry,
    say,
    scope_json,
    who,
)
from ovam_labeler.cli.tokens_touched import Touched, predict_again
from ovam_labeler.errors import BadRequestError, NotFoundError
from token_store.contract import TokenStore
from token_store.entities import AliasChange, Scope
from token_store.registry_contract import ACTIVE, CANDIDATE


def promote(
    name: str = NAME,
    version: str = typer.Argument(
        "candidate", metavar="[VERSION]", help="A number or an alias; default: the candidate."
    ),
    word: bool = typer.Option(False, "--word", help="Use the class's word again instead of a version."),
    why: str = WHY,
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Make a version the active one: the next predictions use it.  `rollback` takes it back."""
    scope = scope_of(connection, project)
    if word and version != "candidate":
        raise BadRequestError(f"--word uses the class's word; leave out the version {version!r}.")
    with open_registry(scope, name) as store:
        if word:
            moves = store.decide(scope, name, aliases={ACTIVE: None}, who=who(), why=why or "the word by hand")
            change = moves[0] if moves else AliasChange(scope, name, ACTIVE, None, None)
        else:
            _check_candidate(store, scope, name, version)
            change = store.promote(scope, name, number_or_alias(version), who=who(), why=why or "promoted by hand")
        touched = predict_again(store, [change])
    _report(change, touched, json_output)


def rollback(
    name: str = NAME,
    steps: int = typer.Option(1, "--steps", min=1, max=1000, help="How many moves of the active version to take back."),
    why: str = WHY,
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Take the last move of the active version back: predictions are as they were before it, exactly."""
    scope = scope_of(connection, project)
    with open_registry(scope, name) as store:
        change = store.rollback(scope, name, who=who(), why=why or "rolled back by hand", steps=steps)
        touched = predict_again(store, [change])
    _report(change, touched, json_output)


def archive(
    name: str = NAME,
    version: str = VERSION,
    why: str = WHY,
    yes: bool = YES,
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Put a version away: it loses its aliases, and `tokens gc` may delete it later.  Asks where it is in use."""
    scope = scope_of(connection, project)
    with open_registry(scope, name) as store:
        found = store.get_version(scope, name, number_or_alias(version))
        if found.aliases:
            after = " Predictions then use the word." if "active" in found.aliases else ""
            confirm(f"Version {found.number} of {name!r} is {', '.join(found.aliases)}. Archive it?{after}", yes)
        changes = store.archive(scope, name, found.number, who=who(), why=why or "archived by hand")
        touched = predict_again(store, [change for change in changes if change.alias == ACTIVE])
    if json_output:
        print_json(
            {
                "class_name": name,
                **scope_json(scope),
                "archived": found.number,
                "aliases": {c.alias: {"before": c.before, "after": c.after} for c in changes},
                **touched.as_json(),
            }
        )
        return
    say(f"Archived version {found.number} of {name!r} ({scope}).")
    for change in changes:
        say(f"  {change.alias} is gone; it pointed at version {change.before}.")
    touched.tell()


def tag(
    name: str = NAME,
    tags: list[str] = typer.Argument(
        None, metavar="[KEY=VALUE]...", help="Tags to set; KEY alone sets an empty value."
    ),
    remove: list[str] = typer.Option([], "--remove", metavar="KEY", help="A tag to take away; repeatable."),
    version: str | None = typer.Option(None, "--version", help="Tag this version, not the token."),
    why: str = WHY,
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Set and take away tags of a token, or of one of its versions; without any, show them."""
    scope = scope_of(connection, project)
    wanted: dict[str, str | None] = {}
    for text in tags or []:
        key, _, value = text.partition("=")
        if not key.strip():
            raise BadRequestError(f"A tag is {text!r}; KEY=VALUE is needed.")
        wanted[key.strip()] = value
    wanted.update(dict.fromkeys(remove))
    with open_registry(scope, name) as store:
        number = None if version is None else store.get_version(scope, name, number_or_alias(version)).number
        for key in wanted:
            store.set_tag(scope, name, key, wanted[key], who=who(), why=why, version=number)
        found = dict(
            store.get_token(scope, name).tags if number is None else store.get_version(scope, name, number).tags
        )
    if json_output:
        print_json({"class_name": name, **scope_json(scope), "version": number, "tags": found})
        return
    what = f"{name!r}" if number is None else f"Version {number} of {name!r}"
    say(f"{what} ({scope}): " + (", ".join(f"{k}={v}" if v else k for k, v in found.items()) or "no tags"))


def _check_candidate(store: TokenStore, scope: Scope, name: str, version: str) -> None:
    """Raises NotFoundError: no version waits as the candidate; says which there are."""
    aliases = store.get_token(scope, name).aliases
    if version == CANDIDATE and CANDIDATE not in aliases:
        newest = ", ".join(str(v.number) for v in store.newest_versions(scope, name, limit=10))
        raise NotFoundError(
            f"{name!r} ({scope}) has no candidate: name a version to promote ({newest or 'none is left'}); see `ovam-labeler "
            "tokens show`."
        )


def _report(change: AliasChange, touched: Touched, json_output: bool) -> None:
    if json_output:
        print_json(
            {
                "class_name": change.class_name,
                **scope_json(change.scope),
                "alias": change.alias,
                "before": change.before,
                "after": change.after,
                **touched.as_json(),
            }
        )
        return
    before, after = ("its word" if v is None else f"version {v}" for v in (change.before, change.after))
    if change.before == change.after:
        say(f"{change.class_name!r} ({change.scope}): {after} is active already.")
    else:
        say(f"{change.class_name!r} ({change.scope}): predictions now use {after}; before, {before}.")
    touched.tell()
