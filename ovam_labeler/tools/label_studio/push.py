"""Job ``push``: predictions made by the worker and handed to Label Studio through its API.

Two causes: a token landed, so that the next open tasks get masks of it before anybody opens them; or a batch was asked for
that cannot be done while Label Studio waits.  Both end in few tasks a job, and learning comes in between any two tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from backends.contract import Progress
from ovam_labeler.domain import LearnResult, ProjectOptions
from ovam_labeler.jobs.kinds import LEARN
from ovam_labeler.services import Application
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connection import PageMissingError
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.predictions import is_among
from ovam_labeler.tools.label_studio.push_queue import PushQueue, scope_of_job
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from token_store.entities import Job, Scope

log = logging.getLogger(__name__)

#: Tasks of one job.  A correction that comes meanwhile waits for one task, not for all of these.
TASKS = 10

#: A push waits while corrections of its project wait to be learned, but no longer than this.
PATIENCE = timedelta(seconds=60)

#: Our stale predictions are deleted when they are this old.  A younger one may be open in an editor: Label Studio refuses
#: an annotation whose prediction is gone (400, measured), and the annotator's work with it.
PRUNE_AFTER = timedelta(hours=24)

#: Label Studio's sampling for which a backend's title must be the model version.
UNCERTAINTY = "Uncertainty sampling"


class Pusher:
    """Runs push jobs (a :class:`ovam_labeler.jobs.contract.JobHandler`).  Thread-safe."""

    def __init__(
        self, application: Application, tool: LabelStudioTool, predict: PredictService, queue: PushQueue
    ) -> None:
        self._application = application
        self._tool = tool
        self._predict = predict
        self._queue = queue

    def learned(self, job: Job, results: Sequence[LearnResult]) -> None:
        """Told after each learned correction.  Several in a row give one push."""
        if any(result.moved for result in results):
            self._queue.later(scope_of_job(job))

    def run(self, job: Job, progress: Progress) -> Mapping[str, Any]:
        """See :meth:`ovam_labeler.jobs.contract.JobHandler.run`.

        Returns:
            ``{"version", "pushed", "there", "failed", "pruned", "left"}``: tasks that were given a prediction, had one of
            this version, got none; stale predictions deleted; tasks left to the next job.
        """
        scope = scope_of_job(job)
        if self._learning(scope) and datetime.now(UTC) - job.created_at < PATIENCE and not job.payload.get("tasks"):
            self._queue.postpone(scope)
            return {"postponed": "Corrections of this project wait to be learned first."}
        client = self._tool.connections.client(scope.connection)
        project = client.project(scope.project)
        text = str(project.get("label_config") or "")
        config, options = self._tool.parse_config(text), self._predict.options(scope)
        version = self._predict.model_version(config, scope, options)
        doubtful = project.get("sampling") == UNCERTAINTY
        given = [str(task) for task in job.payload.get("tasks") or ()]
        tasks = _there(client, given[:TASKS]) if given else self._open(client, scope, options, doubtful)
        if doubtful:  # after the tasks were listed: they are sorted by scores of the version before
            follow_title(client, scope.project, version)
        done, undone = self._push(client, scope, config, options, version, tasks, progress)
        rest = [*undone, *given[TASKS:]]
        if rest and given:
            # a job that got nowhere, tokens landing all the while, steps back a moment
            self._queue.add(scope, 0.0 if any(done.values()) else 1.0, tasks=rest)
        elif rest:
            self._queue.later(scope)
        return {"version": version, **done, "left": len(rest)}

    def gave_up(self, job: Job, sentence: str) -> None:
        log.warning("Predictions of project %s were not pushed: %s", scope_of_job(job), sentence)

    def _learning(self, scope: Scope | None = None) -> bool:
        """Does a correction wait to be learned now, of this project or (``None``) of any?"""
        jobs = self._application.store.list_jobs(states=("queued",), kinds=(LEARN,), limit=1000)
        return any(scope in (None, scope_of_job(job)) and job.run_after <= datetime.now(UTC) for job in jobs)

    def _open(
        self, client: LabelStudioClient, scope: Scope, options: ProjectOptions, doubtful: bool
    ) -> list[dict[str, Any]]:
        """The tasks that nobody has annotated, in the order of the label stream, at most ``push`` of them.

        Uncertainty sampling looks at tasks with a prediction of the current version only, which are those pushed here: so
        the most doubtful ones come first, by what the version before said.
        """
        nobody = ("total_annotations", "equal", "Number", 0)
        order = "predictions_score" if doubtful else "id"
        return client.list_tasks(scope.project, nobody, order=order, size=options.push)[: options.push]

    def _push(
        self,
        client: LabelStudioClient,
        scope: Scope,
        config: ParsedConfig,
        options: ProjectOptions,
        version: str,
        tasks: Sequence[Mapping[str, Any]],
        progress: Progress,
    ) -> tuple[dict[str, int], list[str]]:
        """What became of the tasks, and those left to the next job because a correction or a new token came in between."""
        counts = {"pushed": 0, "there": 0, "failed": 0, "pruned": 0}
        for number, task in enumerate(tasks):
            if number and self._learning():
                return counts, [str(t["id"]) for t in tasks[number:]]
            progress(number / len(tasks), f"Task {task['id']}, {number + 1} of {len(tasks)}")
            stored = client.predictions(int(task["id"]))
            if is_among(stored, version) or self._predict.is_asked_for(scope, task, version):
                counts["there"] += 1
            else:
                made = self._predict.prediction_of(scope, config, options, task)
                if made is None:
                    counts["failed"] += 1
                    continue
                if made["model_version"] != version:  # a token landed meanwhile
                    self._queue.later(scope)
                    return counts, [str(t["id"]) for t in tasks[number:]]
                # Asked again at the last moment: the label stream may have asked for this task while we worked.
                again = client.predictions(int(task["id"]))
                if self._predict.is_asked_for(scope, task, version) or is_among(again, version):
                    counts["there"] += 1
                else:
                    client.import_predictions(scope.project, [{"task": task["id"], **made}])
                    self._predict.pushed(scope, str(task["id"]), version)
                    counts["pushed"] += 1
            counts["pruned"] += prune(client, stored, version)
        return counts, []


def _there(client: LabelStudioClient, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """The tasks that have not been deleted meanwhile."""
    found = []
    for task in tasks:
        try:
            found.append(client.task(task))
        except PageMissingError:
            log.info("Task %s is gone; nothing is pushed for it.", task)
    return found


def prune(client: LabelStudioClient, stored: Sequence[Mapping[str, Any]], version: str) -> int:
    """Delete, by id, a task's predictions of ours that are of another version and a day old; returns how many."""
    pruned = 0
    for prediction in stored:
        made_by = str(prediction.get("model_version") or "")
        if made_by.startswith("ovam-") and made_by != version and _age(prediction) > PRUNE_AFTER:
            client.delete_prediction(int(prediction["id"]))
            pruned += 1
    return pruned


def follow_title(client: LabelStudioClient, project: str, version: str) -> bool:
    """Make our backend's title the model version: uncertainty sampling sorts by predictions whose version is the
    project's, and that follows the title (measured).  Returns whether anything was changed."""
    changed = False
    for backend in client.backends(int(project)):
        if str(backend.get("model_version") or "").startswith("ovam-") and backend.get("title") != version:
            client.set_backend(backend, title=version)
            changed = True
    return changed


def _age(prediction: Mapping[str, Any]) -> timedelta:
    try:
        made = datetime.fromisoformat(str(prediction.get("created_at")))
    except ValueError:
        return timedelta()
    return datetime.now(UTC) - (made if made.tzinfo else made.replace(tzinfo=UTC))
