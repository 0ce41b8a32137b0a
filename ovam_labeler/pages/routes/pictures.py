"""``/pages/pictures`` and ``/pages/picture``: a class's masks before and after, on pictures that people corrected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, render_template, request

from ovam_labeler.errors import NotFoundError, OvamError
from ovam_labeler.pages import query
from ovam_labeler.pages.comparisons import Comparison, Comparisons
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store.entities import Correction

#: Corrections on one page.
SHOWN = 4


def register(pages: Blueprint, application: Application, state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store
    comparisons = Comparisons(application)

    @pages.get("/pictures")
    def pictures() -> str:
        scope, name = query.read_scope(request.args), query.read_name(request.args)
        number = query.read_number(request.args, "version")
        before = query.read_number(request.args, "before")
        with translate_errors():
            version = store.get_version(scope, name, number) if number else None
            known = [
                c
                for c in store.list_corrections(scope, label=name, states=("pending", "learned"))
                if c.image_sha256 and (before is None or c.id < before)
            ]
        now = state()
        ready = now.get("state") == "ready"
        strips: list[tuple[Correction, Comparison | None, str]] = []
        for correction in known[:SHOWN] if ready else ():
            try:
                strips.append((correction, comparisons.of(scope, name, correction, version), ""))
            except OvamError as error:
                strips.append((correction, None, str(error)))
        return render_template(
            "pages/pictures.html" if not request.headers.get("HX-Request") else "pages/_pictures.html",
            scope=scope,
            name=name,
            version=version,
            strips=strips,
            older=known[SHOWN - 1].id if len(known) > SHOWN else None,
            ready=ready,
            sentence=now.get("message", ""),
        )

    @pages.get("/picture")
    def picture() -> Response:
        scope, name = query.read_scope(request.args), query.read_name(request.args)
        number = query.read_number(request.args, "version")
        correction_id = query.read_number(request.args, "correction")
        show = query.read_choice(request.args, "show", ("truth", "word", "parent", "version"))
        with translate_errors():
            correction = store.get_correction(correction_id or 0)
            version = store.get_version(scope, name, number) if number else None
            if correction.scope != scope:
                raise NotFoundError(f"There is no correction {correction_id} in {scope}.")
            webp = comparisons.of(scope, name, correction, version).pictures.get(show)
        if webp is None:
            raise NotFoundError("There is no such picture.")
        return Response(webp, mimetype="image/webp", headers={"Cache-Control": "private, max-age=60"})
