"""Keeps the newest state of every annotation, whatever order its events come in.

An annotation that teaches nothing (a skip, proposals left as they were) and a deleted one are stored as well, as
corrections without labels: an older event that arrives after them is then recognised as old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from token_store.entities import Correction, NewCorrection, Scope

TOOL = "label_studio"

#: A deleted annotation's time: later than any, so that no event of it counts any more.  Label Studio never gives an
#: annotation's id to another one.
NEVER_AGAIN = "9999-12-31T23:59:59+00:00"

_KEPT = ("id", "result", "created_at", "updated_at", "parent_prediction", "lead_time", "ground_truth", "was_cancelled")


def teaches_nothing(scope: Scope, name: str, event: Mapping[str, Any], reason: str) -> NewCorrection:
    """An annotation that teaches nothing, as a correction without labels.

    Args:
        name: the annotation's id, as its corrections are known by.
        reason: one sentence.
    """
    annotation, task = event["annotation"], event["task"]
    project = event.get("project")
    who = annotation.get("updated_by") or annotation.get("completed_by")
    who = who.get("id") if isinstance(who, Mapping) else who
    return NewCorrection(
        scope=scope,
        annotation_id=name,
        updated_at=str(annotation.get("updated_at") or annotation.get("created_at") or ""),
        task_id=str(task.get("id")),
        image_ref="",
        payload={
            "tool": TOOL,
            "annotation": {key: annotation.get(key) for key in _KEPT},
            "label_config": str(project.get("label_config") or "") if isinstance(project, Mapping) else "",
            "reason": reason,
        },
        labels=(),
        annotator=str(who) if isinstance(who, int | str) else "",
    )


def deleted(scope: Scope, name: str) -> NewCorrection:
    """A deleted annotation: nothing that is heard of it later counts."""
    return NewCorrection(scope, name, NEVER_AGAIN, "", "", {"tool": TOOL, "deleted": True}, ())


def reason_of(correction: Correction) -> str:
    """Why a correction without labels teaches nothing, or ""."""
    return str(correction.payload.get("reason") or "")


def annotation_ids(names: Iterable[str]) -> set[str]:
    """Label Studio's annotation ids of the names their corrections are known by (one a picture: ``12``, ``12@2``)."""
    return {name.partition("@")[0] for name in names}
