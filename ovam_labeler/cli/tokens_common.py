"""What the ``tokens`` commands share: which token is meant, how a version looks as JSON, questions before destroying."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from ovam_labeler.cli.common import err, load_settings, out
from ovam_labeler.errors import BadRequestError, NotConfirmedError

if TYPE_CHECKING:
    from token_store.contract import TokenStore
    from token_store.entities import Scope, Token, TokenFilter, TokenVersion, VersionHead

JSON = typer.Option(False, "--json", help="Print as JSON.")
NAME = typer.Argument(..., metavar="NAME", help="The class's name.")
VERSION = typer.Argument(..., metavar="VERSION", help="A number, or an alias such as active or candidate.")
WHY = typer.Option("", "--why", help="One sentence for the audit log.")
YES = typer.Option(False, "--yes", help="Do not ask.")
DRY_RUN = typer.Option(False, "--dry-run", help="Only say what would be done.")


@contextmanager
def open_registry(scope: Scope | None = None, name: str = "") -> Iterator[TokenStore]:
    """The store alone: neither a model nor torch is loaded for looking things up.

    Args:
        scope, name: a token that the command is about.

    Raises:
        NotFoundError: there is none; says in which scopes there are tokens of that name.
    """
    from ovam_labeler.store_errors import translate_store_errors
    from token_store import open_store

    settings = load_settings()
    with translate_store_errors():
        store = open_store(settings.resolved_database_url())
        try:
            if scope is not None:
                check_token(store, scope, name)
            yield store
        finally:
            store.close()


def check_token(store: TokenStore, scope: Scope, name: str) -> None:
    """Raises NotFoundError: the scope has no such token; says in which scopes there are tokens of that name."""
    from token_store.contract import NotFoundError
    from token_store.entities import Scope, TokenFilter

    try:
        store.get_token(scope, name)
    except NotFoundError as error:
        page = store.find_tokens(TokenFilter(name_contains=name), limit=500) if name else None
        there = sorted(t.scope for t in page.tokens if t.class_name == name) if page else []
        if not there:
            raise
        first = there[0]
        if first == Scope.everywhere():
            how = "leave out --connection and --project"
        else:
            how = f"add --connection {first.connection} --project {first.project}"
        raise NotFoundError(f"{str(error)[:-1]}, but in {', '.join(map(str, there[:5]))}: {how}.") from None


def who() -> str:
    """The person at this terminal, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError, ImportError):
        return "cli"


def number_or_alias(text: str) -> int | str:
    """``3`` and ``v3`` are numbers; anything else is an alias."""
    plain = text[1:] if text[:1] == "v" and text[1:].isdigit() else text
    return int(plain) if plain.isdigit() and len(plain) < 10 else text


def confirm(question: str, yes: bool) -> None:
    """Ask before what destroys.

    Raises:
        NotConfirmedError: the answer is no, or nobody can be asked and ``--yes`` was not given.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError(f"{question} Nobody can be asked here: repeat with --yes. Nothing was done.")
    if not typer.confirm(question, err=True):
        raise NotConfirmedError("Nothing was done.")


def parse_tags(tags: Sequence[str]) -> dict[str, str | None]:
    """``KEY=VALUE`` or ``KEY`` (any value) of ``--tag``."""
    found: dict[str, str | None] = {}
    for tag in tags:
        key, equals, value = tag.partition("=")
        if not key.strip():
            raise BadRequestError(f"--tag is {tag!r}; KEY=VALUE or KEY is needed.")
        found[key.strip()] = value if equals else None
    return found


def every_token(store: TokenStore, where: TokenFilter, limit: int | None) -> tuple[list[Token], bool]:
    """Tokens page by page, at most ``limit`` (None = all), and whether there are more."""
    found: list[Token] = []
    after = None
    while True:
        room = 500 if limit is None else min(500, limit - len(found))
        page = store.find_tokens(where, limit=room, after=after)
        found += page.tokens
        after = page.after
        if after is None or (limit is not None and len(found) >= limit):
            return found, after is not None


def version_json(version: TokenVersion) -> dict[str, Any]:
    return {
        "class_name": version.class_name,
        "scope": str(version.scope),
        "version": version.number,
        "state": version.state,
        "aliases": list(version.aliases),
        "tags": dict(version.tags),
        "fingerprint": dict(version.fingerprint),
        "shape": list(version.embedding.shape),
        "sha256": version.sha256,
        "recipe": dict(version.recipe),
        "metrics": dict(version.metrics),
        "provenance": dict(version.provenance),
        "source_corrections": list(version.source_corrections),
        "parent_version": version.parent_version,
        "created_by": version.created_by,
        "created_at": version.created_at.isoformat(),
        "state_at": None if version.state_at is None else version.state_at.isoformat(),
    }


def head_json(head: VersionHead | None) -> dict[str, Any] | None:
    if head is None:
        return None
    return {
        "version": head.number,
        "state": head.state,
        "space": head.fingerprint.get("space"),
        "model": head.fingerprint.get("model"),
        "metrics": figures(head.metrics),
        "created_at": head.created_at.isoformat(),
    }


def token_json(token: Token) -> dict[str, Any]:
    return {
        "class_name": token.class_name,
        "scope": str(token.scope),
        "connection": token.scope.connection,
        "project": token.scope.project,
        "versions": token.versions,
        "aliases": dict(token.aliases),
        "tags": dict(token.tags),
        "active": head_json(token.active),
        "newest": head_json(token.newest),
        "created_at": token.created_at.isoformat(),
        "updated_at": None if token.updated_at is None else token.updated_at.isoformat(),
    }


def figures(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """The single numbers among metrics, without truth values."""
    return {k: v for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def held_back(metrics: Mapping[str, Any]) -> str:
    """IoU on corrections held back from learning, beside the word's; ``-`` without evidence."""
    from ovam_labeler.pages.figures import proof_of

    proof = proof_of(metrics)
    if proof.token is None or proof.word is None:
        return "-"
    return f"{proof.token:.2f} (word {proof.word:.2f})"


def figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def moment(value: datetime | None) -> str:
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M}"


def say(sentence: str) -> None:
    """A line on stdout, words left as they are."""
    out.print(sentence, markup=False, highlight=False, soft_wrap=True)


def note(sentence: str) -> None:
    """A line on stderr, so that a table or JSON on stdout stays clean."""
    err.print(sentence, markup=False, highlight=False, soft_wrap=True)


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A rich table on stdout; cells are plain text, never markup."""
    shown = Table(*columns, title=title)
    for row in rows:
        shown.add_row(*(Text(str(cell)) for cell in row))
    out.print(shown)


def scope_json(scope: Scope) -> dict[str, str]:
    return {"scope": str(scope), "connection": scope.connection, "project": scope.project}
