"""The table of docs/performance.md, made from the figures of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

#: (figure, what it is, bar, whether the bar is met).
ROWS: tuple[tuple[str, str, str, Callable[[float], bool]], ...] = (
    ("fit_exact", "500 SGD epochs over our fit, `exact`", "at least 400", lambda x: x >= 400),
    ("fit_torch", "the same with torch alone, bf16 queries", "at least 120", lambda x: x >= 120),
    ("fit_balanced", "the same, `balanced`", "at least 1500", lambda x: x >= 1500),
    ("classes20", "20 classes one by one over one pass", "at least 15", lambda x: x >= 15),
    (
        "classes20_error",
        "largest difference from the plain formula / largest value",
        "at most 1e-5",
        lambda x: x <= 1e-5,
    ),
    ("baseline_over_stream", "baseline epoch over streaming its queries twice", "at most 6", lambda x: x <= 6),
    ("exact_over_stream", "pass over `exact` queries over streaming them", "at most 2.2", lambda x: x <= 2.2),
    ("peak_mb", "anonymous memory of predicting and learning, MB", "at most 300", lambda x: x <= 300),
)
_PRESETS = {"exact": (350, None), "balanced": (60, 0.98), "small": (20, 0.95)}


def lines(figures: Mapping[str, Any]) -> list[str]:
    """Markdown lines."""
    found = [
        f"Made by `make bench` on {figures['machine']}, kernel {figures['kernel']}, {figures.get('threads', '?')} threads, "
        f"{figures['clock']} clock, {figures.get('bandwidth_gb_s', 0):.1f} GB/s measured in the same run.",
        "",
        "| figure | what | measured | bar | met |",
        "|---|---|---|---|---|",
    ]
    for name, what, bar, met in ROWS:
        if name in figures:
            value = float(figures[name])
            found.append(f"| `{name}` | {what} | {_short(value)} | {bar} | {'yes' if met(value) else 'no'} |")
        if (own := figures.get(f"{name}_own_baseline")) is not None:
            found.append(f"| `{name}_own_baseline` | the same against the measured baseline | {_short(own)} | | |")
    heldout = figures.get("heldout_iou", {})
    if heldout:
        for name, slack in (("exact", 0.0), ("balanced", 0.01)):
            good = heldout[name] >= heldout["sgd500"] - slack
            what = f"mean IoU on {figures['heldout_pictures']} held-out pictures"
            bar = f"at least {heldout['sgd500'] - slack:.3f} (500 SGD epochs{f' - {slack}' if slack else ''})"
            found.append(f"| `heldout_iou.{name}` | {what} | {heldout[name]:.3f} | {bar} | {'yes' if good else 'no'} |")
        found.append(
            f"| `linear_iou` | the same tokens read by `ovam-linear`, without the softmax | {figures['linear_iou']:.3f} | | |"
        )
    found += [
        "",
        "| preset | MB at SD1.5, 30 steps | bar | map error / range: synthetic, embedded | mask IoU: synthetic | embedded | bar |",
        "|---|---|---|---|---|---|---|",
    ]
    columns = ("cache_mb", "map_error", "cache_error", "map_iou", "cache_iou")
    sizes, error, error_embedded, agreement, agreement_embedded = (figures.get(k, {}) for k in columns)
    for name in agreement_embedded or sizes:
        most, least = _PRESETS.get(name, (None, None))
        found.append(
            f"| `{name}` | {_number(sizes.get(name), '.1f')} | {most or ''} | {_number(error.get(name), '.1e')}, "
            f"{_number(error_embedded.get(name), '.1e')} | {_number(agreement.get(name), '.4f')} | "
            f"{_number(agreement_embedded.get(name), '.4f')} | {least or ''} |"
        )
    return found


def put_table(path: Path, figures: Mapping[str, Any]) -> None:
    """Replace what stands between the marks."""
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(head + "\n".join([BEGIN, *lines(figures), END]) + tail, encoding="utf-8")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
