"""``ovam-labeler tokens list|show|history|compare``: look into the registry, change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ovam_labeler.cli.common import CONNECTION, PROJECT, print_json, scope_of
from ovam_labeler.cli.tokens_common import (
    JSON,
    NAME,
    every_token,
    figure,
    figures,
    held_back,
    moment,
    note,
    number_or_alias,
    open_registry,
    parse_tags,
    say,
    table,
    token_json,
    version_json,
)
from ovam_labeler.errors import BadRequestError, NotFoundError
from token_store.entities import TOKEN_ORDERS, TOKEN_STATES, TokenFilter, TokenVersion

if TYPE_CHECKING:
    from token_store.contract import TokenStore

#: Rows of a table unless --limit says otherwise; JSON has no such bound.
_ROWS = 100


def list_tokens(
    name: str = typer.Option("", "--name", help="Only class names that contain this text, upper or lower case."),
    state: str | None = typer.Option(
        None, "--state", help=f"Only tokens whose active version is in this state: {', '.join(TOKEN_STATES)}."
    ),
    tag: list[str] = typer.Option([], "--tag", metavar="KEY[=VALUE]", help="Only tokens with this tag; repeatable."),
    alias: str | None = typer.Option(None, "--alias", help="Only tokens with this alias, such as candidate."),
    active: bool | None = typer.Option(
        None, "--active/--no-active", help="Only tokens that predictions use, or only those whose word is used."
    ),
    order: str = typer.Option("name", "--order", help=f"One of {', '.join(TOKEN_ORDERS)}."),
    limit: int | None = typer.Option(None, "--limit", min=1, help=f"Most tokens; default: {_ROWS}, with --json all."),
    everywhere: bool = typer.Option(False, "--global", help="Only tokens that belong to no project."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """All classes that have a token, of every scope unless one is given.

    With --no-active, --state looks at the newest version instead.
    """
    if state is not None and state not in TOKEN_STATES:
        raise BadRequestError(f"--state is {state!r}; allowed are {', '.join(TOKEN_STATES)}.")
    given = everywhere or connection is not None or project is not None
    where = TokenFilter(
        scope=scope_of(connection, project) if given else None,
        name_contains=name,
        active=active,
        state=state,
        alias=alias,
        tags=parse_tags(tag),
        order=order,
    )
    with open_registry() as store:
        tokens, more = every_token(store, where, limit if limit is not None or json_output else _ROWS)
        total = store.count_tokens(where) if more else len(tokens)
    if json_output:
        print_json([token_json(t) for t in tokens])
        return
    if not tokens:
        if where == TokenFilter(order=order):
            say(
                "No tokens yet: correct a mask in the labeling tool, or run `ovam-labeler learn IMAGE MASK --label NAME`."
            )
        else:
            say("No token matches.")
        return
    rows = []
    for t in tokens:
        shown = t.active or t.newest
        rows.append(
            (
                t.class_name,
                t.scope,
                t.versions,
                "-" if t.active is None else f"v{t.active.number}",
                "-" if shown is None else shown.state + ("" if t.active else f" (v{shown.number})"),
                held_back(shown.metrics) if shown is not None else "-",
                ", ".join(f"{a} v{n}" for a, n in t.aliases.items() if a != "active") or "-",
                ", ".join(f"{k}={v}" if v else k for k, v in t.tags.items()) or "-",
                moment(t.updated_at or t.created_at),
            )
        )
    table(
        None,
        ("class", "scope", "versions", "active", "state", "IoU held back", "other aliases", "tags", "changed"),
        rows,
    )
    if more:
        note(f"{total - len(tokens)} more: narrow the search, or give --limit.")


def show(
    name: str = NAME,
    version: str | None = typer.Option(None, "--version", help="A number or an alias; default: all versions."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """The versions of one class: state, figures, where they come from."""
    scope = scope_of(connection, project)
    with open_registry(scope, name) as store:
        if version is None:
            versions = store.list_versions(scope, name)
        else:
            versions = [store.get_version(scope, name, number_or_alias(version))]
    if json_output:
        print_json([version_json(v) for v in versions])
        return
    for v in versions:
        _say_version(v)


def _say_version(v: TokenVersion) -> None:
    say(f"{v.class_name!r} v{v.number} ({v.scope}): {', '.join((v.state, *v.aliases))}")
    if v.provenance.get("kind") == "imported":
        say(
            f"  imported {moment(v.created_at)} UTC by {v.created_by or 'unknown'}, licence {v.provenance.get('licence')}"
        )
    else:
        say(
            f"  made {v.created_at:%Y-%m-%d %H:%M:%S} UTC by {v.created_by or 'unknown'}, from corrections {list(v.source_corrections)}"
        )
    say(f"  base model {v.fingerprint.get('model')}, embedding space {str(v.fingerprint.get('space'))[:12]}")
    if v.parent_version is not None:
        say(f"  made while version {v.parent_version} was active")
    if v.tags:
        say("  tags " + ", ".join(f"{k}={x}" if x else k for k, x in v.tags.items()))
    for key in ("reason", "demoted"):
        if text := v.metrics.get(key):
            say(f"  {text}")
    if (proof := held_back(v.metrics)) != "-":
        say(f"  IoU on corrections held back: {proof}")
    say("  " + ", ".join(f"{k} {figure(x)}" for k, x in figures(v.metrics).items()))
    libraries = v.metrics.get("libraries")
    if isinstance(libraries, dict):
        say("  made with " + ", ".join(f"{k} {x}" for k, x in libraries.items()))
    claimed = v.metrics.get("claimed")
    if isinstance(claimed, dict) and figures(claimed):
        say("  claimed by its file: " + ", ".join(f"{k} {figure(x)}" for k, x in figures(claimed).items()))


def history(
    name: str = NAME,
    limit: int = typer.Option(50, "--limit", min=1, max=10_000, help="Most entries."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """What happened to one class, newest first: who, when, what, why (from the audit log)."""
    scope = scope_of(connection, project)
    with open_registry() as store:
        entries = store.audit(limit, scope=scope, class_name=name)
    if not entries:
        with open_registry(scope, name):  # says so where there is none
            pass
    if json_output:
        print_json([{**e, "at": e["at"].isoformat()} for e in entries])
        return
    if not entries:
        say(f"Nothing is recorded of {name!r}.")
        return
    rows = [
        (f"{e['at']:%Y-%m-%d %H:%M:%S}", e["who"] or "-", e["what"], _change(e["details"]), e["why"] or "-")
        for e in entries
    ]
    table(f"{name} ({scope}), UTC", ("when", "who", "what", "change", "why"), rows)


def _change(details: dict[str, Any]) -> str:
    """The change that an audit entry tells, in one cell."""
    plain = {k: v for k, v in details.items() if k not in ("connection", "project", "class_name")}
    parts = []
    for key in ("alias", "version", "number", "tag", "key"):
        if key in plain:
            parts.append(f"{key} {plain.pop(key)}")
    if "from" in plain or "to" in plain:
        parts.append(f"{plain.pop('from', None) or '-'} -> {plain.pop('to', None) or '-'}")
    parts += [f"{k} {v}" for k, v in plain.items() if isinstance(v, str | int | float)]
    return ", ".join(parts) or "-"


def compare(
    name: str = NAME,
    first: str = typer.Argument("active", metavar="[VERSION]", help="A number or an alias."),
    second: str | None = typer.Argument(
        None, metavar="[OTHER]", help="A number or an alias; default: the candidate, else the newest other one."
    ),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Two versions of a class side by side: states, figures, recipes, and how alike their embeddings are."""
    scope = scope_of(connection, project)
    with open_registry(scope, name) as store:
        token = store.get_token(scope, name)
        if first == "active" and "active" not in token.aliases:
            raise NotFoundError(f"{name!r} has no active version in scope {scope}: name two versions to compare.")
        a = store.get_version(scope, name, number_or_alias(first))
        b = _other(store, a) if second is None else store.get_version(scope, name, number_or_alias(second))
    rows = _differences(a, b)
    alike = _cosine(a, b)
    if json_output:
        print_json(
            {
                "versions": [version_json(a), version_json(b)],
                "differences": {key: [x, y] for key, x, y in rows},
                "cosine": alike,
            }
        )
        return
    table(f"{name} ({scope})", ("", f"v{a.number}", f"v{b.number}"), [(k, figure(x), figure(y)) for k, x, y in rows])
    if alike is None:
        say("The versions belong to different embedding spaces: their embeddings cannot be compared.")
    else:
        say(f"Cosine of the class rows less the background rows: {alike:.3f} (1 = the same direction).")


def _other(store: TokenStore, version: TokenVersion) -> TokenVersion:
    """What a version is compared with unless the user says: the candidate, else the newest other one."""
    scope, name = version.scope, version.class_name
    candidate = store.get_token(scope, name).aliases.get("candidate")
    if candidate is not None and candidate != version.number:
        return store.get_version(scope, name, candidate)
    others = [v for v in store.newest_versions(scope, name, limit=2) if v.number != version.number]
    if not others:
        raise BadRequestError(
            f"{name!r} ({scope}) has only version {version.number}; there is nothing to compare it with."
        )
    return others[0]


def _differences(a: TokenVersion, b: TokenVersion) -> list[tuple[str, Any, Any]]:
    """(what, of the first, of the second): always state, time and figures; recipe and space where they differ."""
    rows: list[tuple[str, Any, Any]] = [
        ("state", a.state, b.state),
        ("aliases", ", ".join(a.aliases) or "-", ", ".join(b.aliases) or "-"),
        ("made", moment(a.created_at), moment(b.created_at)),
        ("corrections", len(a.source_corrections), len(b.source_corrections)),
        ("held back", held_back(a.metrics), held_back(b.metrics)),
    ]
    mine, theirs = figures(a.metrics), figures(b.metrics)
    rows += [(k, mine.get(k, "-"), theirs.get(k, "-")) for k in dict.fromkeys((*mine, *theirs))]
    for title, x, y in (
        ("recipe", a.recipe, b.recipe),
        ("reading", a.fingerprint.get("settings") or {}, b.fingerprint.get("settings") or {}),
    ):
        rows += [(f"{title}: {k}", x.get(k, "-"), y.get(k, "-")) for k in sorted({*x, *y}) if x.get(k) != y.get(k)]
    if a.fingerprint.get("space") != b.fingerprint.get("space"):
        rows.append(("embedding space", str(a.fingerprint.get("space"))[:12], str(b.fingerprint.get("space"))[:12]))
    return rows


def _cosine(a: TokenVersion, b: TokenVersion) -> float | None:
    import numpy as np

    if a.fingerprint.get("space") != b.fingerprint.get("space"):
        return None
    x, y = (v.embedding[1:].mean(0) - v.embedding[0] for v in (a, b))
    return float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-12))
