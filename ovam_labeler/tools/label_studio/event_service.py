"""Handles Label Studio's webhook events.  Each ends in one transaction, in milliseconds: Label Studio waits one second,
tries once and never again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ovam_labeler.errors import BadRequestError
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.corrections import read_event
from ovam_labeler.tools.label_studio.task_images import shows_several
from ovam_labeler.translate import translate_errors
from token_store.entities import Scope

log = logging.getLogger(__name__)

#: Most corrections looked through when tasks are deleted.
MAX_CORRECTIONS = 100_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event: HTTP status, and the answer's JSON."""

    status: int
    body: Mapping[str, Any]


class EventService:
    """Thread-safe.

    Attributes:
        on_training: asked at START_TRAINING to look for a project's lost events; returns at once whether it does.
    """

    def __init__(
        self,
        application: Application,
        notify: Callable[[], None],
        known_image: Callable[[str], str | None] = lambda _reference: None,
    ) -> None:
        """Args: notify wakes the worker after a job was stored; known_image gives the sha256 of an image that was
        fetched under that reference, so that its capture is kept for the job before the job has fetched it again."""
        self._application = application
        self._notify = notify
        self._known_image = known_image
        self.on_training: Callable[[Scope], bool] = lambda _scope: False

    def handle(self, connection: str, event: Mapping[str, Any]) -> Outcome:
        """Handle one event body.

        Raises:
            BadRequestError: a body that is not Label Studio's.
            BadConfigError: the project's label config is unusable.
            StorageFullError: the correction could not be stored; nothing was acknowledged.
        """
        action = event.get("action")
        if not isinstance(action, str):
            raise BadRequestError("The event's field 'action' must be text such as ANNOTATION_CREATED.")
        scope = Scope(connection, project_id(event))
        with translate_errors():
            if action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
                return self._correction(scope, event, updated=action == "ANNOTATION_UPDATED")
            if action in ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED"):
                ids = self._with_pictures(scope, event, _ids(event, "annotations"))
                return self._retract(scope, ids, "The annotation was deleted.")
            if action == "TASKS_DELETED":
                return self._retract_tasks(scope, set(_ids(event, "tasks")))
            if action == "START_TRAINING":
                looked = self.on_training(scope)
                return _ignored(
                    "Corrections are learned as they come; annotations are looked through for missed ones."
                    if looked
                    else "Corrections are learned as they come, so there is nothing to start."
                )
            if action == "PROJECT_UPDATED":
                return _ignored("A changed label config is read at the next /setup.")
        log.info("The event %s of project %s is ignored.", action, scope)
        return _ignored(f"The event {action[:80]} is not used.")

    def _correction(self, scope: Scope, event: Mapping[str, Any], *, updated: bool) -> Outcome:
        task = event.get("task")
        task_id = str(task.get("id")) if isinstance(task, Mapping) else ""
        store = self._application.store
        options = project_options(self._application.settings, store.get_project_options(scope))
        reading = read_event(event, scope, store.last_served(scope, task_id), exhaustive=options.exhaustive)
        for note in reading.notes:
            log.warning("Project %s, task %s: %s", scope, task_id, note)
        if updated and reading.untaught:
            # What the annotator said before no longer stands.
            gone = list(reading.untaught)
            gone = gone if reading.corrections else self._with_pictures(scope, event, gone)
            store.retract_corrections(scope, gone, note=reading.reason or "The annotation was changed.")
        if not reading.corrections:
            return _ignored(reading.reason, reading.notes)
        added = []
        for new in reading.corrections:
            if (image := self._known_image(new.image_ref)) is not None:
                new = replace(new, payload={**new.payload, "image_sha256": image})
            added.append(store.add_correction(new, job_kind="learn" if options.learning else None))
        fresh = [(correction, job) for correction, job, new in added if new]
        if not fresh:
            return _ignored("This event was stored before.", reading.notes)
        if any(job is not None for _, job in fresh):
            self._notify()
        for correction, _ in fresh:
            log.info("Correction %d of %s in project %s, task %s.", correction.id, correction.labels, scope, task_id)
        correction, job = fresh[0]
        body = {
            "status": "stored",
            "correction": correction.id,
            "job": None if job is None else job.id,
            "labels": list(correction.labels),
            "notes": list(reading.notes),
        }
        if len(fresh) > 1:
            body["corrections"] = [c.id for c, _ in fresh]
        return Outcome(201, body)

    def _retract(self, scope: Scope, annotation_ids: list[str], note: str) -> Outcome:
        changed = self._application.store.retract_corrections(scope, annotation_ids, note=note)
        return Outcome(200, {"status": "retracted", "corrections": [c.id for c in changed]})

    def _with_pictures(self, scope: Scope, event: Mapping[str, Any], ids: list[str]) -> list[str]:
        """The annotations' ids, and those under which corrections of further pictures of their tasks are known."""
        project = event.get("project")
        config = project.get("label_config") if isinstance(project, Mapping) else None
        if not isinstance(config, str) or not shows_several(config):
            return ids
        known = self._application.store.list_corrections(scope, limit=MAX_CORRECTIONS)
        further = {c.annotation_id for c in known if c.annotation_id.partition("@")[0] in set(ids)}
        return sorted(further | set(ids))

    def _retract_tasks(self, scope: Scope, task_ids: set[str]) -> Outcome:
        known = self._application.store.list_corrections(scope, limit=MAX_CORRECTIONS)
        annotations = sorted({c.annotation_id for c in known if c.task_id in task_ids and c.state != "retracted"})
        return self._retract(scope, annotations, "The task was deleted.")


def project_id(event: Mapping[str, Any]) -> str:
    """The project's id as text: ``2`` of ``{"project": {"id": 2}}`` and of ``{"project": "2.1795379479"}``.

    Raises:
        BadRequestError: neither.
    """
    project = event.get("project")
    value = project.get("id") if isinstance(project, Mapping) else project
    text = str(value).partition(".")[0] if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise BadRequestError("The field 'project' must hold Label Studio's project id, such as 2 or '2.1795379479'.")
    return text


def _ids(event: Mapping[str, Any], key: str) -> list[str]:
    rows = event.get(key)
    if rows is None and key == "annotations":
        rows = [event.get("annotation")]
    if not isinstance(rows, list):
        raise BadRequestError(f"The event's field '{key}' must be a list of objects with an id.")
    return [str(row["id"]) for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), int | str)]


def _ignored(reason: str, notes: tuple[str, ...] = ()) -> Outcome:
    return Outcome(200, {"status": "ignored", "reason": reason, "notes": list(notes)})
