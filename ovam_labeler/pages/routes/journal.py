"""``/pages/log``: who changed what, when and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, render_template, request

from ovam_labeler.pages import query
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors

PAGE = 100


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    @pages.get("/log")
    def journal() -> str:
        scope = query.read_scope_or_none(request.args)
        name = request.args.get("name", "")[:1000] or None
        before = query.read_number(request.args, "before")
        with translate_errors():
            entries = application.store.audit(PAGE + 1, scope=scope, class_name=name, before=before)
            scopes = [project.scope for project in application.store.list_projects()]
        return render_template(
            "pages/log.html",
            entries=entries[:PAGE],
            older=entries[PAGE - 1]["id"] if len(entries) > PAGE else None,
            scope=scope,
            name=name or "",
            scopes=scopes,
        )
