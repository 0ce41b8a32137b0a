"""``ovam-labeler generate --project``: pictures as tasks of a labeling tool's project, made by durable jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ovam_labeler.cli.common import application, err, out, print_json, progress_bar, project_scope
from ovam_labeler.errors import OvamError

if TYPE_CHECKING:
    from backends.contract import Progress
    from ovam_labeler.generating import GenerateWish
    from ovam_labeler.services import Application
    from ovam_labeler.tools.label_studio.generating import Generator
    from token_store.entities import Job

#: Seconds between two looks at the jobs.
_LOOK = 0.5


class NotGeneratedError(OvamError):
    """Some pictures could not be generated."""

    code = "not_generated"


def generate_tasks(project: str, wish: GenerateWish, *, wait: bool, json_output: bool) -> None:
    """Queue a job for each picture and, unless told otherwise, follow them to their end.

    Raises:
        NotGeneratedError: some failed; the others are tasks now.
    """
    scope = project_scope(project)
    with application() as app:
        from ovam_labeler.tools.label_studio.generating import Generator
        from ovam_labeler.tools.label_studio.tool import LabelStudioTool

        generator = Generator(app, LabelStudioTool(app.settings))
        jobs = generator.queue(scope, wish)
        if wait:
            with progress_bar("Waiting for a worker", quiet=json_output) as progress:
                jobs = _follow(app, generator, jobs, progress)
    rows: list[dict[str, Any]] = [
        {
            "job": job.id,
            "prompt": job.payload["prompt"],
            "seed": job.payload["seed"],
            "state": job.state,
            "task": job.result.get("task"),
            "made": job.result.get("made"),
            "message": job.message,
        }
        for job in jobs
    ]
    if json_output:
        print_json({"project": str(scope), "images": rows})
    else:
        for row in rows:
            _say(row)
        if not wait:
            print_to_go = (
                f"{len(rows)} jobs are queued; a running server does them, and its pages show how far they are."
            )
            out.print(print_to_go, markup=False, highlight=False, soft_wrap=True)
    if failed := [row for row in rows if row["state"] in ("failed", "cancelled")]:
        raise NotGeneratedError(f"{len(failed)} of {len(rows)} pictures were not generated: {failed[0]['message']}")


def _say(row: dict[str, Any]) -> None:
    what = f"job {row['job']}: {row['prompt'][:60]!r}, seed {row['seed']}: "
    if row["state"] == "done":
        what += f"task {row['task']}" + ("" if row["made"] else " (it was there already)")
    else:
        what += row["state"] + (f", {row['message']}" if row["message"] else "")
    (err if row["state"] == "failed" else out).print(what, markup=False, highlight=False, soft_wrap=True)


def _follow(app: Application, generator: Generator, jobs: list[Job], progress: Progress) -> list[Job]:
    """Wait until all have ended.  Where no worker of this data folder runs, this process does them."""
    from ovam_labeler.application import WORKERS
    from ovam_labeler.jobs.kinds import GENERATE
    from ovam_labeler.jobs.local import LocalJobs, live_workers

    folder = app.settings.data_dir / WORKERS
    own: LocalJobs | None = None
    try:
        while True:
            jobs = [app.store.get_job(job.id) for job in jobs]
            open_ones = [job for job in jobs if job.state in ("queued", "running")]
            if not open_ones:
                return jobs
            if own is None and not live_workers(folder):
                own = LocalJobs(app.store, {GENERATE: generator}, folder)
                own.start()
            share = sum(job.progress if job.state == "running" else 0.0 for job in open_ones)
            said = next((job.message for job in open_ones if job.message), "")
            ended = len(jobs) - len(open_ones)
            progress((ended + share) / len(jobs), f"{ended} of {len(jobs)}: {said or 'waiting'}")
            time.sleep(_LOOK)
    finally:
        if own is not None:
            own.stop(10.0)
