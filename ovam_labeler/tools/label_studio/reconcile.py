"""Finds what no event told: Label Studio sends each event once and waits one second for the answer.

Two looks at a project, over its API: *changed* reads the tasks touched since the last look, by their ``updated_at`` (every
annotation created, updated or deleted touches its task; measured); *whole* compares the ids of all annotations, which
also finds what was missed while a cursor was lost.  Both hand annotations in as events; known ones are recognised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ovam_labeler.errors import OvamError
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.annotation_states import annotation_ids
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connections import Connections
from ovam_labeler.tools.label_studio.event_service import EventService
from ovam_labeler.translate import translate_errors
from token_store.entities import KnownAnnotation, Scope

log = logging.getLogger(__name__)

#: Note of a project: ``{"cursor": newest updated_at of a task that was looked at}``.
NOTE = "reconciled"

#: Tasks are looked at again for so long before the cursor: a transaction may end after a later one.
OVERLAP = timedelta(seconds=30)

PAGE = 200


class Reconciler:
    """Thread-safe; one look at a project at a time."""

    def __init__(self, connections: Connections, events: EventService, application: Application) -> None:
        self._connections = connections
        self._events = events
        self._store = application.store
        self._settings = application.settings
        self._running: set[Scope] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self, scope: Scope, *, whole: bool = False) -> bool:
        """Look in the background.  False where the connection's Label Studio is not known."""
        if not self._connections.knows(scope.connection):
            return False
        with self._lock:
            if scope in self._running:
                return True
            self._running.add(scope)
        name = f"reconcile {scope}"
        threading.Thread(target=self._run, args=(scope, whole), name=name, daemon=True).start()
        return True

    def start_known(self, *, whole: bool = True) -> None:
        """Look through every known project, as after a time in which this server was down."""
        for project in self._store.list_projects():
            self.start(project.scope, whole=whole)

    def start_periodic(self) -> None:
        """Look at what changed every ``OVAM_RECONCILE_SECONDS``, until :meth:`stop`; never where that is 0."""
        if self._settings.reconcile_seconds > 0:
            threading.Thread(target=self._periodic, name="reconcile", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def run(self, scope: Scope, *, whole: bool = False) -> int:
        """Look now; returns how many corrections were new, and how many were taken back.

        Raises:
            FetchError: Label Studio is not reachable or refuses the token.
        """
        client = self._connections.client(scope.connection)
        with translate_errors():
            project = client.project(scope.project)
            self._events.names.follow(scope, project)
            found = sum(self._task(client, scope, project, task) for task in self._changed(client, scope))
            return found + (self._whole(client, scope, project) if whole else 0)

    def _changed(self, client: LabelStudioClient, scope: Scope) -> Iterator[Mapping[str, Any]]:
        """Tasks touched since the last look; the cursor follows page by page.

        Pages are cut by the cursor and not by number: a task touched meanwhile moves to the end, and the ones after it
        would slip through.
        """
        cursor = str(self._store.get_note(scope, NOTE).get("cursor") or "")
        since, page = _before(cursor), 1
        while not self._stopping.is_set():
            filters = [("updated_at", "greater_or_equal", "Datetime", since)] if since else []
            tasks = client.list_tasks(scope.project, *filters, order="updated_at", page=page, size=PAGE)
            yield from tasks
            if not tasks:
                return
            newest = str(tasks[-1]["updated_at"])
            if newest > cursor:
                cursor = newest
                self._store.put_note(scope, NOTE, {"cursor": cursor})
            if len(tasks) < PAGE:
                return
            # Many tasks of one moment fill pages of their own.
            moment = _before(newest, timedelta())
            page, since = (page + 1, since) if moment == since else (1, moment)

    def _task(
        self, client: LabelStudioClient, scope: Scope, project: Mapping[str, Any], task: Mapping[str, Any]
    ) -> int:
        """Bring one task's annotations up to date; returns how many changes were found."""
        # What is known is read first: an annotation made meanwhile must not look deleted.
        known = _living(self._store.known_annotations(scope, [str(task["id"])]))
        counted = int(task.get("total_annotations") or 0) + int(task.get("cancelled_annotations") or 0)
        if not counted and not known:
            return 0
        annotations = client.annotations(int(task["id"]))
        gone = set(known) - {str(a.get("id")) for a in annotations}
        found = self._gone(client, scope, gone)
        for annotation in annotations:
            stored = known.get(str(annotation.get("id")))
            if stored is None or stored.updated_at != str(annotation.get("updated_at")):
                found += self._offer(scope, project, task, annotation)
        return found

    def _whole(self, client: LabelStudioClient, scope: Scope, project: Mapping[str, Any]) -> int:
        known = _living(self._store.known_annotations(scope))
        there: set[str] = set()
        found = 0
        for page in range(1, 1_000_000):
            filters = ("annotations_ids", "empty", "List", False)
            tasks = client.list_tasks(scope.project, filters, page=page, size=PAGE)
            for task in tasks:
                ids = {i.strip() for i in str(task.get("annotations_ids") or "").split(",") if i.strip()}
                there |= ids
                if ids - set(known):
                    found += self._task(client, scope, project, task)
            if len(tasks) < PAGE or self._stopping.is_set():
                break
        return found + self._gone(client, scope, set(known) - there)

    def _gone(self, client: LabelStudioClient, scope: Scope, names: set[str]) -> int:
        """Take back what deleted annotations taught; each is asked for first, since a list may miss one."""
        missing = sorted(name for name in names if not client.annotation_exists(name))
        if not missing:
            return 0
        return len(self._events.forget(scope, missing, "The annotation was deleted; its event was lost."))

    def _offer(
        self, scope: Scope, project: Mapping[str, Any], task: Mapping[str, Any], annotation: Mapping[str, Any]
    ) -> bool:
        event = {"action": "ANNOTATION_UPDATED", "annotation": annotation, "task": task, "project": project}
        try:
            return self._events.handle(scope.connection, event).status == 201
        except OvamError as error:
            log.warning("Project %s, annotation %s is passed over: %s", scope, annotation.get("id"), error)
            return False

    def _run(self, scope: Scope, whole: bool) -> None:
        try:
            found = self.run(scope, whole=whole)
            log.info("Project %s: %d corrections had not arrived before.", scope, found)
        except OvamError as error:
            log.warning("Project %s could not be looked through for lost events: %s", scope, error)
        except Exception:
            log.exception("Project %s could not be looked through for lost events", scope)
        finally:
            with self._lock:
                self._running.discard(scope)

    def _periodic(self) -> None:
        while not self._stopping.wait(self._settings.reconcile_seconds):
            try:
                self.start_known(whole=False)
            except Exception:
                log.exception("Projects could not be looked through for lost events")


def _living(known: list[KnownAnnotation]) -> dict[str, KnownAnnotation]:
    """Annotations that are not known to be deleted, by Label Studio's id."""
    found = {}
    for one in known:
        for name in annotation_ids([one.annotation_id]):
            if one.state != "retracted" and name.isdigit():
                found[name] = one
    return found


def _before(cursor: str, by: timedelta = OVERLAP) -> str:
    """A moment as Label Studio's filters take it: in UTC, with a fraction and a ``Z``; any other form is a 500 (measured)."""
    try:
        moment = datetime.fromisoformat(cursor) - by
    except ValueError:
        return ""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
