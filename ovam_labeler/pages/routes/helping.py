"""``/pages/helping``: is it helping?  The figures of ``ovam-labeler report``, plotted by class and token version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.errors import NotFoundError
from ovam_labeler.helping import report, resume
from ovam_labeler.pages import query
from ovam_labeler.pages.version_plots import seconds_plot, share_plot, version_name
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors

#: Most classes shown, those with the most proposals first.
SHOWN = 60


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.get("/helping")
    def helping() -> str:
        scope = query.read_scope_or_none(request.args)
        with translate_errors():
            scopes = [project.scope for project in store.list_projects()]
            found = report(store, scope)
        classes = _classes(found)
        return render_template(
            "pages/helping.html",
            classes=classes[:SHOWN],
            more=len(classes) - SHOWN,
            scope=scope,
            scopes=scopes,
            by=version_name,
            done=query.read_choice(request.args, "done", ("resume",)),
            name=request.args.get("name", "")[:1000],
        )

    @pages.post("/helping")
    def propose_again() -> Response:
        scope, name = query.read_scope(request.form), query.read_name(request.form)
        with translate_errors():
            if not resume(store, scope, name):
                raise NotFoundError(f"The class '{name}' of project {scope} has not stopped proposing.")
        current_app.extensions.get("ovam_moved", lambda _scope: None)(scope)
        return redirect(url_for(".helping", scope=query.scope_text(scope), done="resume", name=name), 303)


def _classes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry a class of a project: its rows, plots, stability, and why it stopped; the busiest first."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in found["classes"]:
        rows.setdefault((row["scope"], row["label"]), []).append(row)
    stability = {(one["scope"], one["label"]): one for one in found["stability"]}
    quiet = {(one["scope"], one["label"]): one for one in found["quiet"]}
    classes = [
        {
            "scope": scope,
            "label": label,
            "rows": own,
            "plot": share_plot(own),
            "seconds": seconds_plot(own),
            "stability": stability.get((scope, label)),
            "quiet": quiet.get((scope, label)),
        }
        for (scope, label), own in rows.items()
    ]
    # One that has stopped is what a lead has to look at.
    return sorted(classes, key=lambda one: (one["quiet"] is None, -sum(row["proposals"] for row in one["rows"])))
