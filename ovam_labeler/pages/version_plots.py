"""Figures of a class by token version as points of SVG lines: word first, then versions in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Most marks on the axis of versions; of more, every n-th is named.
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over the versions.

    Attributes:
        key: of the figure in the report; also its style.
        words: its name for people.
        lines: polylines, one for each run of versions where the figure is known.
        dots: (x, y, what it says) of each version where it is known.
    """

    key: str
    words: str
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A box of ``width`` x ``height``, its highest value at the top.

    Attributes:
        names: (x, text) of the axis of versions.
        marks: (y, text) of the axis of values.
        summary: what it shows, in a sentence, for those who cannot see it.
    """

    width: int
    height: int
    series: tuple[Series, ...]
    names: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]
    summary: str


#: Shares 0..1 of one plot, with their names.
SHARES = {
    "untouched": "submitted untouched",
    "iou": "IoU of proposal and submission",
    "deleted": "regions deleted",
}


def share_plot(rows: Sequence[Mapping[str, Any]], width: int = 480, height: int = 150) -> Plot:
    """The figures of 0..1.  Args: rows of one class of :func:`ovam_labeler.helping.report`, in order."""
    marks = tuple((height * (1 - share), f"{share:g}") for share in (0.0, 0.5, 1.0))
    return _plot(rows, SHARES, 1.0, marks, width, height, "{:.2f}")


def seconds_plot(rows: Sequence[Mapping[str, Any]], width: int = 220, height: int = 150) -> Plot | None:
    """Median seconds on an annotation; None where no time is known."""
    known = [row["lead_time"] for row in rows if row["lead_time"] is not None]
    if not known:
        return None
    top = max(max(known), 1.0)
    marks = ((float(height), "0"), (0.0, f"{top:.0f} s"))
    return _plot(rows, {"lead_time": "median seconds on an annotation"}, top, marks, width, height, "{:.1f} s")


def version_name(version: int | None) -> str:
    """What asked for the class: its word, or a version of its token."""
    return "word" if version is None else f"v{version}"


def _plot(
    rows: Sequence[Mapping[str, Any]],
    keys: Mapping[str, str],
    top: float,
    marks: tuple[tuple[float, str], ...],
    width: int,
    height: int,
    form: str,
) -> Plot:
    # A version stands in the middle of its part of the axis, so that a single one is not at its edge.
    places = [(k + 0.5) / len(rows) * width for k in range(len(rows))]
    names = [version_name(row["token_version"]) for row in rows]
    series = []
    for key, words in keys.items():
        points = [
            None if row[key] is None else (x, height * (1 - min(max(row[key] / top, 0.0), 1.0)))
            for x, row in zip(places, rows, strict=True)
        ]
        dots = tuple(
            (*point, f"{name}: {words} {form.format(row[key])}, of {row['proposals']}")
            for point, name, row in zip(points, names, rows, strict=True)
            if point is not None
        )
        if dots:
            series.append(Series(key, words, tuple(_runs(points)), dots))
    every = -(-len(rows) // _MOST_NAMES)
    shown = tuple((x, name) for k, (x, name) in enumerate(zip(places, names, strict=True)) if k % every == 0)
    ends = "; ".join(_course(one) for one in series)
    return Plot(width, height, tuple(series), shown, marks, f"{ends}.")


def _course(series: Series) -> str:
    """``hurt from 0.50 (word) to 0.10 (v3)``."""
    first, last = (dot[2].partition(": ") for dot in (series.dots[0], series.dots[-1]))
    ends = [f"{rest.removeprefix(series.words).partition(',')[0].strip()} ({name})" for name, _, rest in (first, last)]
    return f"{series.words} {ends[0]}" if len(series.dots) == 1 else f"{series.words} from {ends[0]} to {ends[1]}"


def _runs(points: Sequence[tuple[float, float] | None]) -> list[str]:
    runs: list[list[str]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(f"{point[0]:.1f},{point[1]:.1f}")
    return [" ".join(run) for run in runs if len(run) > 1]
