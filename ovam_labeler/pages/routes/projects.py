"""``/pages/projects`` and ``/pages/project``: when a new version is used, and which classes go on learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.errors import BadRequestError, NotFoundError
from ovam_labeler.jobs.kinds import REVIEW
from ovam_labeler.option_changes import change_options
from ovam_labeler.options import project_options, tool_options
from ovam_labeler.pages import options_form, query
from ovam_labeler.pages.routes import generating
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

#: Note in which a project's labels are kept (see the labeling tool's ``renames``).
LABELS = "labels"

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
            learned = [t.class_name for t in tokens]
            known = options_form.known_classes(store.get_note(scope, LABELS), [*learned, *paused], options)
            making = generating.under_way(store, scope)
        generator = current_app.extensions.get("ovam_generate")
        return render_template(
            "pages/project.html",
            scope=scope,
            project=found,
            options=options,
            policies=POLICIES,
            classes=sorted({*learned, *paused}),
            paused=set(paused),
            known=known,
            fields=options_form.fields(application.settings, found.options),
            fixed=set(tool_options(found.options)),
            making=making,
            can_generate=generator is not None and generator.knows(scope),
            done=query.read_choice(request.args, "done", ("settings", "masks", "pause", "resume", "generate")),
            count=query.read_number(request.args, "count") or 0,
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
                _change_learning(scope, why)
            elif what == "masks":
                _change_masks(scope, why)
            elif what in ("pause", "resume") and 0 < len(name) <= 1000:
                store.pause_class(scope, name, what == "pause", who=g.user, why=why, job_kind=REVIEW)
                application.jobs.notify()
            else:
                raise BadRequestError("The field act must be settings, masks, pause:CLASS or resume:CLASS.")
        return redirect(url_for(".project", scope=query.scope_text(scope), done=what, name=name or None), 303)

    def _change_learning(scope: Scope, why: str) -> None:
        """Policy and learning, as far as the labeling tool does not set them."""
        policy = query.read_choice(request.form, "policy", POLICIES)
        fixed = tool_options(store.get_project_options(scope))
        if not policy and "policy" not in fixed:
            raise BadRequestError(f"The field policy must be one of {', '.join(POLICIES)}.")
        changes = {"policy": policy, "learning": request.form.get("learning") == "on"}
        changes = {name: value for name, value in changes.items() if name not in fixed}
        store.change_project_options(scope, changes, who=g.user, why=why)

    def _change_masks(scope: Scope, why: str) -> None:
        """Options of masks and the classes to learn; open tasks are predicted again where masks have changed."""
        stored = store.get_project_options(scope)
        changes = options_form.read_fields(application.settings, stored, request.form)
        if "which" in request.form and "classes" not in tool_options(stored):
            changes["classes"] = options_form.read_classes(request.form, request.form.getlist("class"))
        if change_options(store, application.settings, scope, changes, who=g.user, why=why):
            application.jobs.notify()
        if store.get_project_options(scope) != stored:
            current_app.extensions.get("ovam_moved", lambda _scope: None)(scope)


def _project(store: TokenStore, scope: Scope) -> Project:
    """A project the store knows.  Raises NotFoundError."""
    for found in store.list_projects():
        if found.scope == scope:
            return found
    raise NotFoundError(
        f"There is no project {scope} here; it appears when its labeling tool has asked this server for the first time."
    )
