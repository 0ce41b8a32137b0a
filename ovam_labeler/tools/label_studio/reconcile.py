"""Finds annotations whose event was lost: Label Studio sends each once and waits one second for the answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from ovam_labeler.errors import OvamError
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connections import DEFAULT
from ovam_labeler.tools.label_studio.event_service import EventService
from token_store.entities import Scope

log = logging.getLogger(__name__)


class Reconciler:
    """Reads a project's annotations over Label Studio's API and hands them in as events; known ones are recognised."""

    def __init__(self, client: LabelStudioClient, events: EventService, application: Application) -> None:
        self._client = client
        self._events = events
        self._application = application
        self._running: set[Scope] = set()
        self._lock = threading.Lock()

    def start(self, scope: Scope) -> bool:
        """Look in the background.  False where no Label Studio is configured (or it is another connection's)."""
        if self._client.url is None or scope.connection != DEFAULT:
            return False
        with self._lock:
            if scope in self._running:
                return True
            self._running.add(scope)
        threading.Thread(target=self._run, args=(scope,), name=f"reconcile {scope}", daemon=True).start()
        return True

    def start_known(self) -> None:
        """Look through every project that has learned something, as after a time in which this server was down."""
        for scope in sorted({token.scope for token in self._application.store.list_tokens()}):
            self.start(scope)

    def run(self, scope: Scope) -> int:
        """Look now; returns how many corrections were new.

        Raises:
            FetchError: Label Studio is not reachable or refuses the token.
        """
        project = self._client.call("GET", f"/api/projects/{scope.project}")
        found = 0
        for task in self._client.annotated_tasks(int(scope.project)):
            for annotation in task.get("annotations") or []:
                found += self._offer(scope, project, task, annotation)
        return found

    def _offer(
        self, scope: Scope, project: Mapping[str, Any], task: Mapping[str, Any], annotation: Mapping[str, Any]
    ) -> bool:
        event = {"action": "ANNOTATION_CREATED", "annotation": annotation, "task": task, "project": project}
        try:
            return self._events.handle(scope.connection, event).status == 201
        except OvamError as error:
            log.warning("Project %s, annotation %s is passed over: %s", scope, annotation.get("id"), error)
            return False

    def _run(self, scope: Scope) -> None:
        try:
            found = self.run(scope)
            log.info("Project %s: %d corrections had not arrived before.", scope, found)
        except OvamError as error:
            log.warning("Project %s could not be looked through for lost events: %s", scope, error)
        except Exception:
            log.exception("Project %s could not be looked through for lost events", scope)
        finally:
            with self._lock:
                self._running.discard(scope)
