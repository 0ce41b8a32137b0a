"""Handles Label Studio's webhook events.  Each ends in one transaction, in milliseconds: Label Studio waits one second,
tries once and never again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ovam_labeler.errors import BadRequestError
from ovam_labeler.helping import review
from ovam_labeler.jobs.kinds import LEARN, REVIEW
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.annotation_states import annotation_ids, deleted, teaches_nothing
from ovam_labeler.tools.label_studio.corrections import read_event
from ovam_labeler.tools.label_studio.outcomes import read_outcomes
from ovam_labeler.tools.label_studio.renames import LabelNames
from ovam_labeler.tools.label_studio.task_images import shows_several
from ovam_labeler.translate import translate_errors
from token_store.contract import StoreError
from token_store.entities import Correction, Scope, ServedPrediction

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event: HTTP status, and the answer's JSON."""

    status: int
    body: Mapping[str, Any]


class EventService:
    """Thread-safe.

    Attributes:
        names: follows renamed labels.
        on_training: asked at START_TRAINING to look for a project's lost events; returns at once whether it does.
    """

    def __init__(
        self,
        application: Application,
        notify: Callable[[], None],
        known_image: Callable[[str, str], str | None] = lambda _reference, _connection: None,
    ) -> None:
        """Args: notify wakes the worker after a job was stored; known_image gives the sha256 of an image that was
        fetched under that reference, so that its capture is kept for the job before the job has fetched it again."""
        self._application = application
        self._notify = notify
        self._known_image = known_image
        self.names = LabelNames(application.store)
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
                return self._correction(scope, event)
            if action in ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED"):
                names = self._with_pictures(scope, event, _ids(event, "annotations"))
                return _retracted(self.forget(scope, names, "The annotation was deleted."))
            if action == "TASKS_DELETED":
                return self._retract_tasks(scope, _ids(event, "tasks"))
            if action == "START_TRAINING":
                looked = self.on_training(scope)
                return _ignored(
                    "Corrections are learned as they come; annotations are looked through for missed ones."
                    if looked
                    else "Corrections are learned as they come, so there is nothing to start."
                )
            if action == "PROJECT_UPDATED":
                followed = self.names.follow(scope, event.get("project"))
                now = ", ".join(f"'{old}' is now '{new}'" for old, new in followed)
                return _ignored(
                    f"The label {now}." if followed else "A changed label config is read at the next /setup."
                )
        log.info("The event %s of project %s is ignored.", action, scope)
        return _ignored(f"The event {action[:80]} is not used.")

    def forget(self, scope: Scope, names: Sequence[str], note: str) -> list[Correction]:
        """Take back what deleted annotations taught, and let no later event of them count; returns what changed."""
        store = self._application.store
        changed = store.retract_corrections(scope, names, note=note, job_kind=REVIEW)
        for name in names:
            store.add_correction(deleted(scope, name), job_kind=None)
        store.retract_corrections(scope, names, note=note)
        if changed:
            self._notify()
        store.drop_outcomes(scope, names)
        return changed

    def _correction(self, scope: Scope, event: Mapping[str, Any]) -> Outcome:
        task = event.get("task")
        task_id = str(task.get("id")) if isinstance(task, Mapping) else ""
        store = self._application.store
        self.names.follow(scope, event.get("project"))
        event = self.names.present(scope, event)
        options = project_options(self._application.settings, store.get_project_options(scope))
        served = store.last_served(scope, task_id)
        reading = read_event(event, scope, served, exhaustive=options.exhaustive)
        for note in reading.notes:
            log.warning("Project %s, task %s: %s", scope, task_id, note)
        self._outcomes(scope, event, served)
        gone = list(reading.untaught)
        gone = gone if reading.corrections else self._with_pictures(scope, event, gone, task_id)
        added = []
        for new in (
            *reading.corrections,
            # What the annotator said before no longer stands, whatever order the events come in.
            *(teaches_nothing(scope, name, event, reading.reason) for name in gone),
        ):
            if (image := self._known_image(new.image_ref, scope.connection)) is not None:
                new = replace(new, payload={**new.payload, "image_sha256": image})
            added.append(store.add_correction(new, job_kind=LEARN if options.learning else None, review_kind=REVIEW))
        if not any(first for _, _, first in added):
            return _ignored("This event was stored before.", reading.notes)
        if not reading.corrections:
            return _ignored(reading.reason, reading.notes)
        fresh = [(c, job) for c, job, first in added if first and c.labels and c.state != "retracted"]
        if not fresh:
            return _ignored("A later state of this annotation is known already.", reading.notes)
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

    def _outcomes(self, scope: Scope, event: Mapping[str, Any], served: ServedPrediction | None) -> None:
        """Keep what became of our proposals.  Without it the report knows less, but no correction is lost."""
        try:
            labels = list(served.regions.values()) if served is not None else []
            outcomes = read_outcomes(event, scope, served, labels)
            self._application.store.put_outcomes(outcomes)
            for label in review(
                self._application.store, scope, outcomes, datetime.now(UTC).isoformat(timespec="seconds")
            ):
                log.warning("Project %s: '%s' stops proposing; `ovam-labeler report` says why.", scope, label)
        except (StoreError, KeyError, TypeError) as error:
            log.warning("Project %s: what became of a proposal could not be kept: %s", scope, error)

    def _with_pictures(
        self, scope: Scope, event: Mapping[str, Any], ids: list[str], task_id: str | None = None
    ) -> list[str]:
        """The annotations' ids, and those under which corrections of further pictures of their tasks are known."""
        if not shows_several(_config(event)):
            return ids
        known = self._application.store.known_annotations(scope, None if task_id is None else [task_id])
        further = {one.annotation_id for one in known if annotation_ids([one.annotation_id]) & set(ids)}
        return sorted(further | set(ids))

    def _retract_tasks(self, scope: Scope, task_ids: list[str]) -> Outcome:
        known = self._application.store.known_annotations(scope, task_ids)
        names = sorted(one.annotation_id for one in known if one.state != "retracted")
        return _retracted(self.forget(scope, names, "The task was deleted."))


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


def _config(event: Mapping[str, Any]) -> str:
    project = event.get("project")
    return str(project.get("label_config") or "") if isinstance(project, Mapping) else ""


def _retracted(corrections: list[Correction]) -> Outcome:
    taught = [c.id for c in corrections if c.labels]
    return Outcome(200, {"status": "retracted", "corrections": taught})


def _ids(event: Mapping[str, Any], key: str) -> list[str]:
    rows = event.get(key)
    if rows is None and key == "annotations":
        rows = [event.get("annotation")]
    if not isinstance(rows, list):
        raise BadRequestError(f"The event's field '{key}' must be a list of objects with an id.")
    return [str(row["id"]) for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), int | str)]


def _ignored(reason: str, notes: tuple[str, ...] = ()) -> Outcome:
    return Outcome(200, {"status": "ignored", "reason": reason, "notes": list(notes)})
