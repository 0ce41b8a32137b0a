"""Is the assistant helping?  Figures per class and token version from what annotators made of its proposals.

Pure functions over :class:`token_store.entities.ProposalOutcome`; the result is plain data, for tables and plots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from token_store.contract import TokenStore
from token_store.entities import ProposalOutcome, Scope

#: A class is stable from its first run of so many proposals that were submitted as they were, or nearly (IoU).
STABLE_RUN, STABLE_IOU = 5, 0.9

#: A proposal hurts when mending it is more work than drawing: all of it was deleted, or less than this was right.
HURT_IOU = 0.3

#: A class whose last proposals of one token version mostly hurt stops proposing: at least this share of this many.
HURT_COUNT, HURT_SHARE = 6, 0.75

#: Note of a project: class -> ``{"version", "reason", "since"}`` of what stopped proposing.
QUIET = "quiet classes"


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of one class asked for by one token version (None = its word).

    Attributes:
        proposals: annotations whose prediction had a region of the class.
        untouched: share submitted as proposed, 0..1.
        iou: mean IoU of proposal and submission where it was measured; None where it never was.
        deleted: share of proposed regions that were taken away.
        lead_time: median seconds on an annotation as a whole; None where unknown.
        hurt: share that was more work to mend than to draw.
    """

    scope: Scope
    label: str
    token_version: int | None
    proposals: int
    untouched: float
    iou: float | None
    deleted: float
    lead_time: float | None
    hurt: float


def figures(outcomes: Iterable[ProposalOutcome]) -> list[ClassFigures]:
    """By project, class and token version; words first, then versions in order."""
    groups: dict[tuple[Scope, str, int], list[ProposalOutcome]] = {}
    for one in outcomes:
        groups.setdefault((one.scope, one.label, one.token_version or 0), []).append(one)
    rows = []
    for (scope, label, version), group in sorted(groups.items()):
        regions = sum(o.untouched + o.changed + o.deleted for o in group)
        measured = [o.iou for o in group if o.iou is not None]
        times = [o.lead_time for o in group if o.lead_time is not None]
        rows.append(
            ClassFigures(
                scope=scope,
                label=label,
                token_version=version or None,
                proposals=len(group),
                untouched=fmean(o.kept for o in group),
                iou=fmean(measured) if measured else None,
                deleted=sum(o.deleted for o in group) / regions if regions else 0.0,
                lead_time=median(times) if times else None,
                hurt=fmean(hurts(o) for o in group),
            )
        )
    return rows


def hurts(outcome: ProposalOutcome) -> bool:
    """Whether the proposal was more work to mend than to draw."""
    rejected = outcome.deleted > 0 and not outcome.untouched and not outcome.changed
    return rejected or (outcome.iou is not None and outcome.iou < HURT_IOU)


def corrections_until_stable(outcomes: Sequence[ProposalOutcome]) -> int | None:
    """How many proposals of one class were corrected before the first run of :data:`STABLE_RUN` good ones.

    None while there was no such run.  ``outcomes`` are of one class, oldest first.
    """
    corrected = run = 0
    for one in outcomes:
        if one.kept or (one.iou is not None and one.iou >= STABLE_IOU):
            run += 1
            if run == STABLE_RUN:
                return corrected
        else:
            run = 0
            corrected += 1
    return None


def stops(outcomes: Sequence[ProposalOutcome], token_version: int | None) -> str | None:
    """Why a class asked for by ``token_version`` should stop proposing, in one sentence; None where it should not."""
    last = [o for o in outcomes if o.token_version == token_version][-HURT_COUNT:]
    bad = sum(hurts(o) for o in last)
    if len(last) < HURT_COUNT or bad < HURT_SHARE * len(last):
        return None
    return (
        f"Of its last {len(last)} proposals {bad} were deleted whole or less than {HURT_IOU:.0%} right, which is more work "
        "than drawing; it proposes again when a new version is learned, or with `ovam-labeler report --resume`."
    )


def report(store: TokenStore, scope: Scope | None = None) -> dict[str, Any]:
    """Everything the report shows, as plain data.

    Returns:
        ``{"classes": [figures of a class and version], "stability": [{"project", "label", "corrections_until_stable",
        "corrected"}], "quiet": [{"project", "label", "version", "reason", "since"}]}``.
    """
    outcomes = store.list_outcomes(scope)
    classes = [{**asdict(row), "scope": str(row.scope)} for row in figures(outcomes)]
    by_class: dict[tuple[Scope, str], list[ProposalOutcome]] = {}
    for one in outcomes:
        by_class.setdefault((one.scope, one.label), []).append(one)
    stability = [
        {
            "scope": str(where),
            "label": label,
            "corrections_until_stable": corrections_until_stable(group),
            "corrected": sum(not o.kept for o in group),
        }
        for (where, label), group in sorted(by_class.items())
    ]
    everywhere = {p.scope for p in store.list_projects()} | {o.scope for o in outcomes}
    scopes = [scope] if scope is not None else sorted(everywhere)
    quiet = [
        {"scope": str(where), "label": label, **entry}
        for where in scopes
        for label, entry in sorted(store.get_note(where, QUIET).items())
    ]
    return {"classes": classes, "stability": stability, "quiet": quiet}


def quiet_labels(store: TokenStore, scope: Scope, active: Mapping[str, int]) -> frozenset[str]:
    """Classes that propose nothing now: they stopped, and no other version has become active since.

    Args:
        active: number of the active version by class; a class without one is asked for by its word.
    """
    note = store.get_note(scope, QUIET)
    return frozenset(label for label, entry in note.items() if entry.get("version") == active.get(label))


def review(store: TokenStore, scope: Scope, outcomes: Sequence[ProposalOutcome], now: str) -> list[str]:
    """Look at the classes of new outcomes; those that hurt stop proposing.  Returns them.  ``now``: ISO time."""
    stopped = []
    for label, version in {(o.label, o.token_version) for o in outcomes}:
        reason = stops(store.list_outcomes(scope, label), version)
        if reason and store.get_note(scope, QUIET).get(label, {}).get("version", -1) != version:
            # A class resumed by a person stays so for this version.
            if version in (store.get_note(scope, f"{QUIET}: resumed").get(label) or []):
                continue
            store.change_note(scope, QUIET, {label: {"version": version, "reason": reason, "since": now}})
            stopped.append(label)
    return stopped


def resume(store: TokenStore, scope: Scope, label: str) -> bool:
    """Have a class propose again with the version it has; False where it had not stopped."""
    entry = store.get_note(scope, QUIET).get(label)
    if entry is None:
        return False
    store.change_note(scope, QUIET, {label: None})
    resumed = store.get_note(scope, f"{QUIET}: resumed").get(label) or []
    store.change_note(scope, f"{QUIET}: resumed", {label: [*resumed, entry.get("version")]})
    return True
