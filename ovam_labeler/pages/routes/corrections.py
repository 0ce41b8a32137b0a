"""``/pages/corrections``: what people corrected, what became of it, what failed or is in dispute, and how to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.disagreements import decide, disagreements
from ovam_labeler.errors import BadRequestError
from ovam_labeler.pages import query, work
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store.entities import CORRECTION_STATES, Scope

SHOWN = 100

#: Tasks of a project that are looked through for annotators who disagree, those annotated last.
DISPUTES = 50


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.get("/corrections")
    def corrections() -> str:
        scope = query.read_scope_or_none(request.args)
        state = query.read_choice(request.args, "state", CORRECTION_STATES)
        name = request.args.get("name", "").strip()[:1000]
        with translate_errors():
            scopes = [*(project.scope for project in store.list_projects()), Scope.everywhere()]
            shown = [scope] if scope else scopes
            rows = work.correction_rows(store, shown, (state,) if state else (), name or None, SHOWN)
            disputes = [d for one in shown for d in disagreements(store, one, newest=DISPUTES)]
        return render_template(
            "pages/corrections.html",
            rows=rows,
            disputes=[d for d in disputes if not name or name in d.label],
            scopes=scopes,
            scope=scope,
            state=state,
            states=CORRECTION_STATES,
            name=name,
            most=SHOWN,
            moving=any(r.correction.state == "pending" for r in rows),
            label_studio=application.settings.label_studio_url,
        )

    @pages.post("/corrections")
    def correct_again() -> Response:
        number, choice = query.read_number(request.form, "again"), request.form.get("teaches", "")
        with translate_errors():
            if choice:
                decide(store, *_choice(choice), g.user)
            elif number is not None:
                work.learn_again(store, number, g.user)
            else:
                raise BadRequestError("The field again or teaches must be a correction's number.")
        application.jobs.notify()
        return redirect(url_for(".corrections", scope=request.form.get("back_scope") or None), 303)


def _choice(text: str) -> tuple[int, int, str]:
    """(the correction that teaches, the other one, the class) of ``3:7:tea pot``."""
    teaches, _, rest = text.partition(":")
    other, _, label = rest.partition(":")
    if not (label and all(n.isascii() and n.isdigit() and len(n) <= 15 for n in (teaches, other))):
        raise BadRequestError("The field teaches must be two corrections' numbers and a class, such as 3:7:tea pot.")
    return int(teaches), int(other), label
