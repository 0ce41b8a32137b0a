"""The tables of docs/annotator.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ovam_labeler.evaluation.annotator.edit_time import Pace, draw_seconds
from ovam_labeler.evaluation.annotator.figures import (
    LOOP,
    NOTHING,
    STEP,
    WAYS,
    WORDS,
    ClassTime,
    Run,
    Saved,
    class_times,
    curve,
    gain,
    other_paces,
    per_mask,
    saved,
    seconds,
    seconds_mending,
    seconds_sweeping,
    spread,
)
from ovam_labeler.evaluation.annotator.session import ACCEPTED, FALSE, MISSING, WRONG

#: Between these lines of the page everything is written anew.
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

#: Bounds of the IoU by which proposals are told apart.
QUALITY = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 1.01)


def late(runs: Sequence[Run]) -> int:
    """The first picture of the second half: what is compared as "late"."""
    return max(run.scenes for run in runs) // 2


def tables(runs: Sequence[Run], pace: Pace, space: str, split: str) -> str:
    """All tables as Markdown."""
    masks = sum(one.draw is not None for run in runs for one in run.sessions[LOOP])
    classes = sum(len(run.words) for run in runs)
    head = (
        f"{len(runs)} seeds ({', '.join(str(run.seed) for run in runs)}), {sum(run.scenes for run in runs)} pictures, {masks} masks, "
        f"{classes} draws of classes, split `{split}`; embedding space `{space[:12]}`; tolerance {pace.tolerance:.1%}, "
        f"brush {pace.brush:.0%} of the shorter side."
    )
    parts = [
        head,
        _over_time(runs, pace),
        _met(runs),
        _by_quality(runs, pace),
        _classes(class_times(runs, pace), class_times(runs, pace, late(runs)), late(runs)),
        _sensitivity(runs, pace),
    ]
    return "\n\n".join(parts)


def write_page(page: Path, text: str) -> None:
    """Put the tables between the page's marks.  Raises ValueError: the page has none."""
    old = page.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}.")
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _over_time(runs: Sequence[Run], pace: Pace) -> str:
    lines = [f"| seconds a mask, pictures | {' | '.join(WAYS)} |", "|---|" + "---|" * len(WAYS)]
    columns = [curve(runs, way, pace) for way in WAYS]
    for point in range(len(columns[0])):
        cells = [_spread(column[point]) for column in columns]
        lines.append(f"| {point * STEP + 1} to {(point + 1) * STEP} | {' | '.join(cells)} |")
    cells = [_spread([per_mask(run, way, pace) for run in runs]) for way in WAYS]
    lines.append(f"| all | {' | '.join(f'**{cell}**' for cell in cells)} |")
    rest = [saved(runs, way, pace) for way in (WORDS, LOOP)]
    lines.append(f"| time saved against drawing | | {' | '.join(map(_saved, rest))} |")
    half = late(runs)
    second = [saved(runs, way, pace, half) for way in (WORDS, LOOP)]
    lines.append(f"| the same, from picture {half + 1} on | | {' | '.join(map(_saved, second))} |")
    return "\n".join(lines) + "\n\nMean over seeds, in brackets the least and the most."


def _met(runs: Sequence[Run]) -> str:
    lines = [
        "| what the annotator met, all seeds | accepted as it was | to be mended | missing | false, deleted | classes that stopped proposing |",
        "|---|---|---|---|---|---|",
    ]
    for way in (WORDS, LOOP):
        for text, first, last in (("first half", 0, late(runs)), ("second half", late(runs), 10**9)):
            works = [one for run in runs for one in run.sessions[way] if first <= one.place < last]
            counts = [sum(one.met == how for one in works) for how in (ACCEPTED, WRONG, MISSING, FALSE)]
            quiet = sum(len(run.quiet[way]) for run in runs) if first else "-"
            lines.append(f"| {way}, {text} | {' | '.join(map(str, counts))} | {quiet} |")
    return "\n".join(lines)


def _by_quality(runs: Sequence[Run], pace: Pace) -> str:
    """From which quality on a proposal is worth having."""
    lines = [
        "| the loop's proposals of classes that are there, by IoU | number | seconds spent | seconds to draw | share that saved time |",
        "|---|---|---|---|---|",
    ]
    proposed = [one for run in runs for one in run.sessions[LOOP] if one.iou is not None]
    for low, high in zip(QUALITY, QUALITY[1:], strict=False):
        works = [one for one in proposed if one.iou is not None and low <= one.iou < high]
        if not works:
            continue
        spent = [seconds(one, pace) for one in works]
        drawn = [draw_seconds(one.draw, pace) for one in works if one.draw is not None]
        won = sum(a < b for a, b in zip(spent, drawn, strict=True)) / len(works)
        text = f"{low:g} to {min(high, 1):g}"
        lines.append(f"| {text} | {len(works)} | {fmean(spent):.1f} | {fmean(drawn):.1f} | {won:.0%} |")
    return "\n".join(lines)


def _classes(rows: Sequence[ClassTime], second: Sequence[ClassTime], half: int) -> str:
    lines = [
        f"| classes | number | {' | '.join(WAYS)} | the loop saves against drawing | against words only | classes helped, not helped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for text, chosen in (
        ("without a word in training", [r for r in rows if not r.has_word]),
        (f"  from picture {half + 1} on", [r for r in second if not r.has_word]),
        ("known words", [r for r in rows if r.has_word]),
        (f"  from picture {half + 1} on", [r for r in second if r.has_word]),
    ):
        if not chosen:
            continue
        means = [f"{sum(r.seconds[way] for r in chosen) / len(chosen):.1f}" for way in WAYS]
        gains = [gain(chosen, LOOP, against) for against in (NOTHING, WORDS)]
        cells = [f"{value:.1f} [{low:.1f}, {high:.1f}]" for value, (low, high) in gains]
        helped = sum(r.seconds[LOOP] < r.seconds[NOTHING] for r in chosen)
        lines.append(
            f"| {text} | {len(chosen)} | {' | '.join(means)} | {' | '.join(cells)} | {helped}, {len(chosen) - helped} |"
        )
    ranked = sorted(second, key=lambda r: r.seconds[NOTHING] - r.seconds[LOOP])
    worst = ", ".join(_named(r) for r in ranked[:5])
    best = ", ".join(_named(r) for r in reversed(ranked[-5:]))
    note = "Seconds a mask of the class, its false proposals included, the picture as a whole not; paired 95 % bootstrap intervals over draws of classes."
    return "\n".join(lines) + f"\n\n{note} Late gains, the most: {best}. The least: {worst}."


def _sensitivity(runs: Sequence[Run], pace: Pace) -> str:
    lines = [
        "| the same sessions, constants changed | drawing, seconds a mask | words only, time saved | the loop, time saved | the loop, late |",
        "|---|---|---|---|---|",
    ]
    cases = [("as stated", pace), *other_paces(pace).items()]
    for text, other in cases:
        drawing = spread([per_mask(run, NOTHING, other) for run in runs])[0]
        cells = [saved(runs, WORDS, other), saved(runs, LOOP, other), saved(runs, LOOP, other, late(runs))]
        lines.append(f"| {text} | {drawing:.1f} | {' | '.join(map(_saved, cells))} |")
    drawing = spread([per_mask(run, NOTHING, pace) for run in runs])[0]
    for text, clock in (
        ("mends however bad, never redraws", seconds_mending),
        ("leads a tool once along the whole border where that is quicker", seconds_sweeping),
    ):
        cells = [saved(runs, way, pace, first, clock) for way, first in ((WORDS, 0), (LOOP, 0), (LOOP, late(runs)))]
        lines.append(f"| {text} | {drawing:.1f} | {' | '.join(map(_saved, cells))} |")
    return "\n".join(lines)


def _named(row: ClassTime) -> str:
    word = "known" if row.has_word else "new"
    return f"{row.label} (seed {row.seed}, {word}, {row.seconds[NOTHING]:.1f} to {row.seconds[LOOP]:.1f} s)"


def _spread(values: Sequence[float]) -> str:
    mean, least, most = spread(values)
    return f"{mean:.1f} ({least:.1f} to {most:.1f})"


def _saved(value: Saved) -> str:
    return f"{value.mean:.0f} % ({value.least:.0f} to {value.most:.0f})"
