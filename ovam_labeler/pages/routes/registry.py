"""``/pages/``: the classes that have learned, and whether that is better than their word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from ovam_labeler.pages import query
from ovam_labeler.pages.curves import Curve, loss_curve
from ovam_labeler.pages.figures import Proof, proof_of, text
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store.contract import TokenStore
from token_store.entities import Scope, Token, TokenFilter, VersionHead
from token_store.registry_contract import CANDIDATE

PAGE = 50

#: Most corrections of a project that are looked at for the counts.
COUNTED = 1000

#: What the choice "show" of the page asks of the store.
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "proven": ("proven: better than the word", {"active": True, "state": "proven"}),
    "unproven": ("unproven: used, little evidence yet", {"active": True, "state": "unproven"}),
    "word": ("the word is used", {"active": False}),
    "candidate": ("a version waits for your decision", {"alias": CANDIDATE}),
}


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One line of the list.

    Attributes:
        shown: the version its figures are of: the one in use, else the newest.
        waiting: corrections of the class that are not learned yet.
    """

    token: Token
    shown: VersionHead | None
    proof: Proof
    reason: str
    curve: Curve | None
    waiting: int
    paused: bool


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.get("/")
    def registry() -> str:
        scope = query.read_scope_or_none(request.args)
        shown = query.read_choice(request.args, "show", SHOWN)
        order = query.read_choice(request.args, "order", ("name", "updated")) or "updated"
        name = request.args.get("q", "").strip()[:200]
        where = TokenFilter(scope=scope, name_contains=name, order=order, **(SHOWN[shown][1] if shown else {}))
        with translate_errors():
            page = store.find_tokens(where, limit=PAGE, after=request.args.get("after") or None)
            scopes = [project.scope for project in store.list_projects()]
            counts = _counts(store, scopes)
            waiting, failed = _corrections(store, scopes)
            paused = {s: set(store.paused_classes(s)) for s in {t.scope for t in page.tokens}}
            found = store.count_tokens(where)
        rows = [_row(token, waiting, token.class_name in paused[token.scope]) for token in page.tokens]
        return render_template(
            "pages/registry.html",
            rows=rows,
            found=found,
            counts=counts,
            waiting=sum(waiting.values()),
            failed=failed,
            scopes=[*scopes, Scope.everywhere()],
            scope=scope,
            shown=shown,
            choices={key: words for key, (words, _) in SHOWN.items()},
            order=order,
            name=name,
            after=page.after,
            later=bool(request.args.get("after")),
        )


def _counts(store: TokenStore, scopes: list[Scope]) -> dict[str, int]:
    counts = {key: store.count_tokens(TokenFilter(**where)) for key, (_, where) in SHOWN.items()}
    return {**counts, "all": store.count_tokens(TokenFilter()), "projects": len(scopes)}


def _corrections(store: TokenStore, scopes: list[Scope]) -> tuple[Counter[tuple[Scope, str]], int]:
    """Corrections waiting by (scope, class), and how many failed."""
    waiting: Counter[tuple[Scope, str]] = Counter()
    failed = 0
    for scope in scopes:
        for correction in store.list_corrections(scope, states=("pending",), limit=COUNTED):
            waiting.update((scope, label) for label in correction.labels)
        failed += len(store.list_corrections(scope, states=("failed",), limit=COUNTED))
    return waiting, failed


def _row(token: Token, waiting: Counter[tuple[Scope, str]], paused: bool) -> ClassRow:
    shown = token.active or token.newest
    metrics = shown.metrics if shown is not None else {}
    return ClassRow(
        token=token,
        shown=shown,
        proof=proof_of(metrics),
        reason=text(metrics.get("reason")),
        curve=loss_curve(metrics, 90, 26),
        waiting=waiting[token.scope, token.class_name],
        paused=paused,
    )
