"""``/pages/generate``: pictures for a project, as jobs; how far they are is on the project's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, current_app, g, redirect, request, url_for
from werkzeug.wrappers import Response

from ovam_labeler.errors import BadRequestError
from ovam_labeler.generating import GenerateWish, count_states, read_prompts, read_size
from ovam_labeler.jobs.kinds import GENERATE
from ovam_labeler.pages import query, work
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from token_store.contract import TokenStore
from token_store.entities import Scope

#: Most pictures asked for at once on a page; more are asked for on the command line.
MOST = 1000

#: Most jobs looked through for a project's.
_LOOKED_AT = 10_000


def register(pages: Blueprint, application: Application, _state: Callable[[], Mapping[str, Any]]) -> None:
    store = application.store

    @pages.post("/generate")
    def generate() -> Response:
        scope = query.read_scope(request.form)
        if request.form.get("act") == "cancel":
            with translate_errors():
                for job in store.list_jobs(states=("queued",), kinds=(GENERATE,), limit=_LOOKED_AT):
                    if work.job_row(job).scope == scope:
                        store.finish_job(job.id, state="cancelled", message=f"Cancelled by {g.user}.")
            return redirect(url_for(".project", scope=query.scope_text(scope), _anchor="generate"), 303)
        generator = current_app.extensions.get("ovam_generate")
        if generator is None:
            raise BadRequestError("No labeling tool of this server takes generated pictures.")
        wish = read_wish(request.form)
        if len(wish.pictures()) > MOST:
            raise BadRequestError(
                f"These are {len(wish.pictures())} pictures; at most {MOST} may be asked for on this page."
            )
        jobs = generator.queue(scope, wish)
        where = url_for(".project", scope=query.scope_text(scope), done="generate", count=len(jobs), _anchor="generate")
        return redirect(where, 303)


def read_wish(form: Mapping[str, str]) -> GenerateWish:
    """What the form asks for.  Raises BadRequestError: names the field and what is allowed."""
    return GenerateWish(
        prompts=read_prompts(form.get("prompts", "")),
        seed=_whole(form, "seed") or 0,
        count=_whole(form, "count") or 1,
        steps=_whole(form, "steps"),
        guidance=_real(form, "guidance"),
        negative_prompt=form.get("negative_prompt", "").strip(),
        size=read_size(form.get("size", "")),
    )


def under_way(store: TokenStore, scope: Scope) -> dict[str, Any]:
    """How far the last request's pictures are: counts, and the message of the one that runs.

    Ended jobs are those that came after the oldest one still open, so that old ones do not count for ever.
    """
    jobs = [j for j in store.list_jobs(kinds=(GENERATE,), limit=_LOOKED_AT) if work.job_row(j).scope == scope]
    still_open = [job for job in jobs if job.state in ("queued", "running")]
    if not still_open:
        return {"left": 0}
    first = min(job.created_at for job in still_open)
    # One request's jobs are queued within moments.
    shown = [job for job in jobs if (first - job.created_at).total_seconds() < 3600 or job in still_open]
    running = next((job for job in shown if job.state == "running"), None)
    counts = count_states([job.state for job in shown])
    share = (counts["done"] + counts["failed"] + (running.progress if running else 0.0)) / counts["all"]
    return {**counts, "share": share, "message": running.message if running else ""}


def _whole(form: Mapping[str, str], name: str) -> int | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequestError(f"The field {name} is {text[:40]!r}; a whole number is allowed.")
    return int(text)


def _real(form: Mapping[str, str], name: str) -> float | None:
    text = form.get(name, "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise BadRequestError(f"The field {name} is {text[:40]!r}; a number is allowed.") from None
