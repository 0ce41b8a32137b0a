"""``/pages/jobs``: the work that is under way, waits, or failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.errors import BadRequestError
from ovam_labeler.pages import query, work
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store.entities import JOB_STATES

SHOWN = 100

#: Kinds of jobs with what they do.
KINDS = {
    "learn": "learns a token from a correction",
    "review": "judges a class again",
    "push": "predicts tasks and hands them to Label Studio",
    "generate": "generates a picture and uploads it as a task",
}

#: Most jobs of a state that are counted.
COUNTED = 1000


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.get("/jobs")
    def jobs() -> str:
        state = query.read_choice(request.args, "state", JOB_STATES)
        kind = query.read_choice(request.args, "kind", KINDS)
        kinds = (kind,) if kind else ()
        with translate_errors():
            found = store.list_jobs(states=(state,) if state else (), kinds=kinds, limit=SHOWN)
            rows = [work.job_row(job) for job in found]
            counts = {name: len(store.list_jobs(states=(name,), kinds=kinds, limit=COUNTED)) for name in JOB_STATES}
        return render_template(
            "pages/jobs.html",
            rows=rows,
            state=state,
            kind=kind,
            kinds=KINDS,
            counts=counts,
            counted=COUNTED,
            most=SHOWN,
            moving=bool(counts["queued"] or counts["running"]),
        )

    @pages.post("/jobs")
    def act_on_job() -> Response:
        again, stop = query.read_number(request.form, "again"), query.read_number(request.form, "cancel")
        state = query.read_choice(request.form, "back_state", JOB_STATES)
        kind = query.read_choice(request.form, "back_kind", KINDS)
        with translate_errors():
            if again is not None:
                work.run_again(store, again, g.user)
                application.jobs.notify()
            elif stop is not None:
                work.cancel(store, stop, g.user)
            else:
                raise BadRequestError("The form must have the field again or cancel with a job's number.")
        return redirect(url_for(".jobs", state=state or None, kind=kind or None), 303)
