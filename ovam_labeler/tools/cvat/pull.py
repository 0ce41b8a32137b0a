"""Takes corrections out of a CVAT task: CVAT sends no annotations in its webhooks, so they are read through its API.

Can be done again at any time: a frame that is as it was is left, a changed one replaces what it taught, one whose
corrections are gone takes back what it taught.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cvat_sdk.core.client import Client
from cvat_sdk.datasets import MediaDownloadPolicy, TaskDataset

from ovam_labeler.image_source import from_pillow
from ovam_labeler.jobs.kinds import LEARN, REVIEW
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.cvat.corrections import read_event, taught_labels
from ovam_labeler.tools.cvat.tool import KEPT, CvatTool
from ovam_labeler.translate import translate_errors
from token_store.entities import Correction, Job, KnownAnnotation, Scope

#: Sources that show that proposals were handed over at all; without one, nothing can have been deleted.
_PROPOSED = ("auto", "semi-auto")

#: A job in this state was gone through to its end.
_DONE = "completed"

#: The type of the jobs that a task's annotations are made of.
_ANNOTATION = "annotation"


@dataclass
class Pulled:
    """What became of a task's frames.

    Attributes:
        stored: corrections that are new or changed, with the job that learns each (None where learning is off).
        unchanged: frames whose correction is known as it is.
        retracted: corrections taken back.
        notes: one sentence for each thing that was passed over.
    """

    stored: list[tuple[Correction, Job | None]] = field(default_factory=list)
    unchanged: int = 0
    retracted: list[Correction] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pull(
    application: Application, tool: CvatTool, client: Client, task_id: int, scope: Scope, *, deletions: bool = False
) -> Pulled:
    """Store the corrections of a task's frames.

    Images are fetched for frames that teach only, and kept in the data folder.

    Args:
        client: logged in; see ``cvat_sdk.make_client``.
        deletions: whether a proposal that is gone from a completed job says that its class is not there.  True only of
            tasks whose proposals were uploaded by ``auto-annotate``: what an agent proposes may never have been saved.

    Raises:
        BadConfigError: no label of the task can have masks.
        BadImageError: a frame is out of bounds.
        StorageFullError: a correction could not be stored; those before it are.
    """
    store = application.store
    pulled = Pulled()
    with translate_errors():
        options = project_options(application.settings, store.get_project_options(scope))
        dataset = TaskDataset(
            client, task_id, load_annotations=False, media_download_policy=MediaDownloadPolicy.FETCH_CHUNKS_ON_DEMAND
        )
        # Not the data set's, which caches annotations on disk.
        task = client.tasks.retrieve(task_id)
        annotations = task.get_annotations()
        labels = [_label(label) for label in dataset.labels]
        names = {label.id: label.name for label in dataset.labels}
        if annotations.tracks:
            pulled.notes.append(
                f"{len(annotations.tracks)} tracks of the task {task_id} are passed over: they are no masks."
            )
        shapes: dict[int, list[dict[str, Any]]] = {}
        for shape in annotations.shapes:
            shapes.setdefault(shape.frame, []).append(_shape(shape, names))
        handed_over = any(s["source"] in _PROPOSED for frame in shapes.values() for s in frame)
        jobs = [
            job for job in task.get_jobs() if str(getattr(job, "type", _ANNOTATION)) == _ANNOTATION
        ]  # not of validation, nor replicas
        known = {one.annotation_id: one for one in store.known_annotations(scope, [str(task_id)])}
        for sample in dataset.samples:
            job = next((j for j in jobs if j.start_frame <= sample.frame_index <= j.stop_frame), None)
            event: dict[str, Any] = {
                "id": f"{task_id}@{sample.frame_index}",
                "task": str(task_id),
                "frame": sample.frame_index,
                "name": sample.frame_name,
                "labels": labels,
                "shapes": shapes.get(sample.frame_index, []),
                "done": deletions and handed_over and job is not None and str(job.state) == _DONE,
                "annotator": _name(job),
            }
            served = store.last_served(scope, sample.frame_name)
            before = known.get(event["id"])
            taught = taught_labels(event, served)
            if not taught:
                if before is not None and before.state != "retracted":
                    pulled.retracted += store.retract_corrections(
                        scope, [event["id"]], note="The frame's corrections are gone.", job_kind=REVIEW
                    )
                continue
            mark = _mark(event, taught)
            if before is not None and before.state != "retracted" and before.updated_at.endswith(mark):
                pulled.unchanged += 1
                continue
            image = from_pillow(sample.media.load_image(), max_pixels=application.settings.max_image_pixels)
            tool.images.keep(image)
            event |= {
                "picture": f"{KEPT}{image.sha256}",
                "size": [image.height, image.width],
                "saved": _moment(before, str(getattr(job, "updated_date", "") or ""), mark),
            }
            new = read_event(event, scope, served, exhaustive=options.exhaustive)
            assert new is not None  # it teaches
            correction, learning, _ = store.add_correction(
                new, job_kind=LEARN if options.learning else None, review_kind=REVIEW
            )
            pulled.stored.append((correction, learning))
    application.jobs.notify()
    return pulled


def _label(label: Any) -> dict[str, Any]:
    """A label as the Raw tab shows it, without its ids."""
    attributes = [{"name": a.name, "default_value": getattr(a, "default_value", "")} for a in label.attributes]
    return {"name": label.name, "type": str(label.type), "attributes": attributes}


def _shape(shape: Any, names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "id": shape.id,
        "type": str(shape.type),
        "label": names.get(shape.label_id, ""),
        "points": list(getattr(shape, "points", None) or ()),
        "source": shape.source,
    }


def _name(job: Any) -> str:
    assignee = getattr(job, "assignee", None)
    return str(getattr(assignee, "username", "") or "")


def _mark(event: Mapping[str, Any], taught: Sequence[str]) -> str:
    """A hash of what a frame says, whatever CVAT calls its shapes: saving a mask again may give it another id."""
    rows = sorted(json.dumps([s["type"], s["label"], s["points"], s["source"]]) for s in event["shapes"])
    return hashlib.sha256(json.dumps([rows, list(taught)]).encode()).hexdigest()[:16]


def _moment(before: KnownAnnotation | None, saved: str, mark: str) -> str:
    """What tells this state of a frame from all others: when its job was saved, and what it says.

    A frame that is brought back to an earlier state within one moment still counts as another one.
    """
    again = 0
    if before is not None and before.updated_at.startswith(saved):
        again = int(before.updated_at.removeprefix(saved).strip().partition(" ")[0] or 0) + 1
    return f"{saved} {again} {mark}"
