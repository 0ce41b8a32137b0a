"""What an annotator made of our proposals, read from a submitted annotation: which regions were kept, edited, deleted.

A region's id survives the editor and is made from task, version, label and mask, so it also says which of several
predictions the annotator worked on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from token_store.entities import ProposalOutcome, Scope, ServedPrediction

#: Longest time on one annotation that counts, in seconds: an editor left open over lunch says nothing of the masks.
MAX_LEAD_TIME = 1800.0


def read_outcomes(
    event: Mapping[str, Any], scope: Scope, served: ServedPrediction | None, labels: Sequence[str]
) -> list[ProposalOutcome]:
    """One outcome a label that the served prediction had a region of.

    Labels that were not proposed are left out: there was no proposal to judge.

    Args:
        served: what was given for the task.
        labels: the config's; others are not proposed.
    """
    annotation, task = event["annotation"], event["task"]
    if served is None or annotation.get("parent_prediction") is None or annotation.get("was_cancelled"):
        return []
    result = annotation.get("result")
    regions = [r for r in result if isinstance(r, Mapping)] if isinstance(result, list) else []
    origins = {str(r.get("id")): str(r.get("origin")) for r in regions}
    ours = {name for name, origin in origins.items() if origin in ("prediction", "prediction-changed")}
    if ours - set(served.regions):
        return []  # another prediction than the one remembered
    proposed = Counter(label for label in served.regions.values() if label in labels)
    untouched = Counter(served.regions[name] for name in ours if origins[name] == "prediction")
    changed = Counter(served.regions[name] for name in ours if origins[name] == "prediction-changed")
    drawn = Counter(
        label for r in regions if str(r.get("id")) not in ours and r.get("origin") == "manual" for label in _labels(r)
    )
    at = _moment(annotation.get("updated_at") or annotation.get("created_at"))
    return [
        ProposalOutcome(
            scope=scope,
            annotation_id=str(annotation["id"]),
            label=label,
            task_id=str(task["id"]),
            annotator=_who(annotation),
            model_version=served.model_version,
            token_version=served.token_versions.get(label),
            untouched=untouched[label],
            changed=changed[label],
            deleted=count - untouched[label] - changed[label],
            drawn=drawn[label],
            iou=1.0 if untouched[label] == count and not drawn[label] else None,
            lead_time=_lead_time(annotation.get("lead_time")),
            at=at,
        )
        for label, count in proposed.items()
    ]


def _labels(region: Mapping[str, Any]) -> list[str]:
    value = region.get("value")
    if not isinstance(value, Mapping):
        return []
    texts = value.get(str(region.get("type"))) or value.get("labels")
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


def _lead_time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_LEAD_TIME:
        return None
    return float(value)


def _who(annotation: Mapping[str, Any]) -> str:
    who = annotation.get("updated_by") or annotation.get("completed_by")
    who = who.get("id") if isinstance(who, Mapping) else who
    return str(who) if isinstance(who, int | str) else ""


def _moment(value: object) -> datetime:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
