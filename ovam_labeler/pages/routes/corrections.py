"""``/pages/corrections``: what people corrected, what became of it, what failed and how to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.errors import BadRequestError
from ovam_labeler.pages import query, work
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store.entities import CORRECTION_STATES, Scope

SHOWN = 100


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.get("/corrections")
    def corrections() -> str:
        scope = query.read_scope_or_none(request.args)
        state = query.read_choice(request.args, "state", CORRECTION_STATES)
        name = request.args.get("name", "").strip()[:1000]
        with translate_errors():
            scopes = [*(project.scope for project in store.list_projects()), Scope.everywhere()]
            rows = work.correction_rows(
                store, [scope] if scope else scopes, (state,) if state else (), name or None, SHOWN
            )
        return render_template(
            "pages/corrections.html",
            rows=rows,
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
        number = query.read_number(request.form, "again")
        if number is None:
            raise BadRequestError("The field again must be a correction's number.")
        with translate_errors():
            work.learn_again(store, number, g.user)
        application.jobs.notify()
        return redirect(url_for(".corrections", scope=request.form.get("back_scope") or None), 303)
