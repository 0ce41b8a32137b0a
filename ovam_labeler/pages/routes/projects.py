"""``/pages/projects`` and ``/pages/project``: when a new version is used, and which classes go on learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.errors import BadRequestError, NotFoundError
from ovam_labeler.jobs.kinds import REVIEW
from ovam_labeler.options import project_options
from ovam_labeler.pages import query
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store.contract import TokenStore
from token_store.entities import Project, Scope, TokenFilter

#: The policies with what they mean.
POLICIES = {
    "auto": ("Use every new version", "A new version is used as soon as it is learned, whatever its figures are."),
    "gate": (
        "Use a new version if it is better",
        "The gate decides on evidence: corrections held back from learning, pictures without the class, proposals that were "
        "submitted untouched. Recommended.",
    ),
    "manual": ("Ask me", "A new version waits as a candidate until someone promotes it here or on the command line."),
}

#: Most classes listed on a project's page.
CLASSES = 500


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.get("/projects")
    def projects() -> str:
        with translate_errors():
            rows = [
                {
                    "project": project,
                    "classes": store.count_tokens(TokenFilter(scope=project.scope)),
                    "used": store.count_tokens(TokenFilter(scope=project.scope, active=True)),
                    "waiting": len(store.list_corrections(project.scope, states=("pending",), limit=1000)),
                    "failed": len(store.list_corrections(project.scope, states=("failed",), limit=1000)),
                    "paused": store.paused_classes(project.scope),
                    "options": project_options(application.settings, project.options),
                }
                for project in store.list_projects()
            ]
        return render_template("pages/projects.html", rows=rows, policies=POLICIES)

    @pages.get("/project")
    def project() -> str:
        scope = query.read_scope(request.args)
        with translate_errors():
            found = _project(store, scope)
            tokens = store.find_tokens(TokenFilter(scope=scope), limit=CLASSES).tokens
            paused = store.paused_classes(scope)
            options = project_options(application.settings, found.options)
        return render_template(
            "pages/project.html",
            scope=scope,
            project=found,
            options=options,
            policies=POLICIES,
            classes=sorted({*(t.class_name for t in tokens), *paused}),
            paused=set(paused),
            done=query.read_choice(request.args, "done", ("settings", "pause", "resume")),
            name=request.args.get("name", "")[:1000],
        )

    @pages.post("/project")
    def change_project() -> Response:
        scope = query.read_scope(request.form)
        why = query.read_reason(request.form)
        what, _, name = request.form.get("act", "").partition(":")
        with translate_errors():
            _project(store, scope)
            if what == "settings":
                policy = query.read_choice(request.form, "policy", POLICIES)
                if not policy:
                    raise BadRequestError(f"The field policy must be one of {', '.join(POLICIES)}.")
                changes = {"policy": policy, "learning": request.form.get("learning") == "on"}
                store.change_project_options(scope, changes, who=g.user, why=why)
            elif what in ("pause", "resume") and 0 < len(name) <= 1000:
                store.pause_class(scope, name, what == "pause", who=g.user, why=why, job_kind=REVIEW)
                application.jobs.notify()
            else:
                raise BadRequestError("The field act must be settings, pause:CLASS or resume:CLASS.")
        return redirect(url_for(".project", scope=query.scope_text(scope), done=what, name=name or None), 303)


def _project(store: TokenStore, scope: Scope) -> Project:
    """A project the store knows.  Raises NotFoundError."""
    for found in store.list_projects():
        if found.scope == scope:
            return found
    raise NotFoundError(
        f"There is no project {scope} here; it appears when its labeling tool has asked for predictions."
    )
