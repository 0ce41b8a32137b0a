"""How values are written in the pages: figures, times, states."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint

from ovam_labeler.pages.sentences import job_about, job_result, sentence_of

#: What states mean to an annotation lead; the store's own words stay in the address and the log.
STATES = {
    "unproven": "unproven",
    "proven": "proven",
    "rejected": "rejected",
    "archived": "archived",
    "pending": "waiting",
    "learned": "learned",
    "ignored": "not learned",
    "failed": "failed",
    "retracted": "withdrawn",
    "queued": "waiting",
    "running": "running",
    "done": "done",
    "cancelled": "cancelled",
}


def register(pages: Blueprint) -> None:
    for name, function in (
        ("iou", iou),
        ("signed", signed),
        ("moment", moment),
        ("iso", iso),
        ("ago", ago),
        ("person", person),
        ("state_name", state_name),
        ("count", count),
        ("share", share),
        ("sentence", sentence_of),
        ("job_about", job_about),
        ("job_result", job_result),
    ):
        pages.add_app_template_filter(function, f"pages_{name}")


def iou(value: float | None) -> str:
    """0..1 with two decimals; a dash for none."""
    return "–" if value is None else f"{value:.2f}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    if value is None:
        return "–"
    rounded = f"{abs(value):.2f}"
    return f"±{rounded}" if rounded == "0.00" else f"{'+' if value > 0 else '−'}{rounded}"


def moment(value: datetime | None) -> str:
    """``24 Nov 10:12``, with the year where it is not this one.  UTC."""
    if value is None:
        return "–"
    value = value.astimezone(UTC)
    year = "" if value.year == datetime.now(UTC).year else f" {value.year}"
    return f"{value.day} {value:%b}{year} {value:%H:%M}"


def iso(value: datetime | None) -> str:
    return "" if value is None else value.astimezone(UTC).isoformat(timespec="seconds")


def ago(value: datetime | None) -> str:
    """``3 min ago``, ``in 2 min``; the largest unit that fits, rounded down."""
    if value is None:
        return "–"
    seconds = (datetime.now(UTC) - value.astimezone(UTC)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            words = f"{int(abs(seconds) / size)} {unit}"
            return f"{words} ago" if seconds > 0 else f"in {words}"
    return "just now" if seconds >= 0 else f"in {-seconds:.0f} s"


def person(value: str) -> str:
    """Who did something: labeling tools give a number for an annotator."""
    return f"annotator {value}" if value.isdigit() else value or "–"


def state_name(value: str) -> str:
    return STATES.get(value, value)


def count(value: int, one: str, many: str | None = None) -> str:
    """``1 correction``, ``2 corrections``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def share(value: float) -> str:
    """0..1 as a whole percentage."""
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"
