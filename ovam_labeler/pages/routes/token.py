"""``/pages/token``: one class, its versions, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.errors import BadRequestError, ConflictError
from ovam_labeler.pages import query
from ovam_labeler.pages.curves import Curve, loss_curve
from ovam_labeler.pages.figures import Proof, evidence_of, number, proof_of, text
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store import contract
from token_store.contract import TokenStore
from token_store.entities import Scope, TokenVersion
from token_store.registry_contract import ACTIVE

#: Versions on one page, newest first.
PAGE = 25

#: Most tasks counted that a version had touched.
TOUCHED = 1000


@dataclass(frozen=True, slots=True)
class VersionRow:
    version: TokenVersion
    proof: Proof
    reason: str
    demoted: str
    curve: Curve | None
    examples: int | None
    seconds: float | None


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.get("/token")
    def token() -> str:
        scope, name = query.read_scope(request.args), query.read_name(request.args)
        before = query.read_number(request.args, "before")
        wanted = query.read_number(request.args, "version")
        with translate_errors():
            found = store.get_token(scope, name)
            versions = store.newest_versions(scope, name, limit=PAGE + 1, before=before)
            shown = _shown(store, scope, name, wanted or found.aliases.get(ACTIVE), versions)
            parent = _parent(store, shown)
            corrections = store.list_corrections(scope, label=name, limit=20)
            entries = store.audit(15, scope=scope, class_name=name)
            paused = name in store.paused_classes(scope)
        rows = [_row(v) for v in versions[:PAGE]]
        return render_template(
            "pages/token.html",
            token=found,
            scope=scope,
            name=name,
            active=found.aliases.get(ACTIVE),
            rows=rows,
            older=rows[-1].version.number if len(versions) > PAGE else None,
            shown=_row(shown) if shown is not None else None,
            curve=loss_curve(shown.metrics, 460, 150) if shown is not None else None,
            evidence=evidence_of(shown.metrics) if shown is not None else [],
            parent=parent,
            corrections=corrections,
            entries=entries,
            paused=paused,
            done=_done(request.args),
        )

    @pages.post("/token")
    def act_on_token() -> Response:
        scope, name = query.read_scope(request.form), query.read_name(request.form)
        what, _, text_number = request.form.get("act", "").partition(":")
        seen = query.read_number(request.form, "active")
        version = query.read_number({"version": text_number}, "version")
        why = query.read_reason(request.form)
        with translate_errors():
            change = _act(store, scope, name, what, version, seen, who=g.user, why=why)
            touched = store.affected_tasks(scope, name, seen, limit=TOUCHED) if change else []
            # The labeling tool asks again when a task is opened, since the model version changed; the next ones need not wait.
            moved = current_app.extensions.get("ovam_moved", lambda _scope: None)
            for one in sorted({served.scope for served in touched}):
                moved(one)
        target = url_for(
            ".token", scope=query.scope_text(scope), name=name, done=what, number=version, touched=len(touched) or None
        )
        return redirect(target, 303)


def _act(
    store: TokenStore,
    scope: Scope,
    name: str,
    what: str,
    version: int | None,
    seen: int | None,
    *,
    who: str,
    why: str,
) -> bool:
    """Do what a button says; returns whether what is in use may have changed.

    Args:
        seen: the version in use when the page was made.

    Raises:
        BadRequestError: no such button.
        ConflictError: what is in use changed since the page was made, or there is nothing to roll back to.
    """
    expect = {ACTIVE: seen}
    try:
        if what == "promote" and version is not None:
            store.promote(scope, name, version, who=who, why=why, expect=expect)
            return True
        if what == "word":
            store.decide(scope, name, aliases={ACTIVE: None}, who=who, why=why, expect=expect)
            return True
        if what == "rollback":
            if store.get_token(scope, name).aliases.get(ACTIVE) != seen:
                raise contract.ConflictError
            store.rollback(scope, name, who=who, why=why)
            return True
        if what == "archive" and version is not None:
            return any(change.alias == ACTIVE for change in store.archive(scope, name, version, who=who, why=why))
    except contract.ConflictError as error:
        now = store.get_token(scope, name).aliases.get(ACTIVE)
        raise ConflictError(
            f"'{name}' changed since this page was made: {_used(now)} is in use now. Look at it again; nothing was changed."
        ) from error
    except (contract.NotFoundError, contract.InvalidValueError, contract.StoreFullError):
        raise
    except contract.StoreError as error:
        raise ConflictError(str(error)) from error
    raise BadRequestError("The field act must be promote:NUMBER, archive:NUMBER, rollback or word.")


def _used(number: int | None) -> str:
    return "the word" if number is None else f"version {number}"


def _shown(
    store: TokenStore, scope: Scope, name: str, wanted: int | None, versions: list[TokenVersion]
) -> TokenVersion | None:
    if wanted is None:
        return versions[0] if versions else None
    return next((v for v in versions if v.number == wanted), None) or store.get_version(scope, name, wanted)


def _parent(store: TokenStore, version: TokenVersion | None) -> TokenVersion | None:
    """The version before; None where there was none, or it was deleted."""
    if version is None or version.parent_version is None:
        return None
    found = store.newest_versions(version.scope, version.class_name, limit=1, before=version.parent_version + 1)
    return found[0] if found and found[0].number == version.parent_version else None


def _row(version: TokenVersion) -> VersionRow:
    examples = number(version.metrics.get("examples"))
    return VersionRow(
        version=version,
        proof=proof_of(version.metrics),
        reason=text(version.metrics.get("reason")),
        demoted=text(version.metrics.get("demoted")),
        curve=loss_curve(version.metrics, 90, 26),
        examples=None if examples is None else int(examples),
        seconds=number(version.metrics.get("seconds")),
    )


def _done(args: Mapping[str, str]) -> dict[str, Any] | None:
    """What the page before did, from a fixed list: no text of an address is shown as a message of ours."""
    what = query.read_choice(args, "done", ("promote", "rollback", "archive", "word", "pause", "resume"))
    if not what:
        return None
    return {"what": what, "number": query.read_number(args, "number"), "touched": query.read_number(args, "touched")}
