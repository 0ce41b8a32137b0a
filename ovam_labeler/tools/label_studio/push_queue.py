"""Queues push jobs (:mod:`ovam_labeler.tools.label_studio.push` runs them).  Knows no model, so that a command may queue one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ovam_labeler.options import project_options
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.connections import Connections
from token_store.contract import TokenStore
from token_store.entities import Job, Scope

PUSH = "push"


class PushQueue:
    """Thread-safe.  A job is done by whichever process has a worker; it looks for jobs of other processes each second."""

    def __init__(
        self,
        settings: Settings,
        store: TokenStore,
        connections: Connections,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        """Args: notify wakes this process's worker."""
        self._settings = settings
        self._store = store
        self._connections = connections
        self._notify = notify

    def later(self, scope: Scope) -> Job | None:
        """The job that pushes the project's next open tasks, queued unless it waits already; None where pushing is off
        or the connection's Label Studio is not known."""
        options = project_options(self._settings, self._store.get_project_options(scope))
        if options.push < 1 or not self._connections.knows(scope.connection):
            return None
        waiting = (job for job in self._waiting() if scope_of_job(job) == scope and not job.payload.get("tasks"))
        return next(waiting, None) or self.postpone(scope)

    def postpone(self, scope: Scope) -> Job:
        """Queue a push of the project's next open tasks after the delay of the settings, whatever waits."""
        return self.add(scope, self._settings.push_delay)

    def hand_over(self, scope: Scope, tasks: Sequence[str]) -> bool:
        """Take over tasks that cannot be predicted while Label Studio waits.  False where it is not configured so."""
        if self._settings.batches != "push" or not self._connections.knows(scope.connection):
            return False
        queued = self._waiting()
        waiting = {str(t) for job in queued if scope_of_job(job) == scope for t in job.payload.get("tasks") or ()}
        if fresh := [task for task in dict.fromkeys(tasks) if task not in waiting]:
            self.add(scope, 0.0, tasks=fresh)
        return True

    def add(self, scope: Scope, delay: float, **payload: Any) -> Job:
        """Queue a job that is due after ``delay`` seconds."""
        due = datetime.now(UTC) + timedelta(seconds=delay)
        where = {"connection": scope.connection, "project": scope.project}
        job = self._store.add_job(PUSH, {**where, **payload}, run_after=due)
        self._notify()
        return job

    def _waiting(self) -> list[Job]:
        return self._store.list_jobs(states=("queued",), kinds=(PUSH,), limit=1000)


def scope_of_job(job: Job) -> Scope:
    return Scope(str(job.payload.get("connection", "")), str(job.payload.get("project", "")))
