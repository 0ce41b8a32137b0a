"""``make bench``: speed and memory at Stable Diffusion 1.5's shapes, and what presets and fits are worth on the embedded model.

All speeds are ratios in this one run against the paper's formula in plain torch float32.  ``--json`` writes every figure;
``--table`` writes the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from backends.attention.passes import kernel_name
from benchmarks import sizes
from benchmarks.table import put_table
from benchmarks.timing import CLOCKS, use_clock

#: Printed first, in this order.
MAIN = (
    "fit_exact",
    "fit_torch",
    "fit_balanced",
    "classes20",
    "baseline_over_stream",
    "exact_over_stream",
    "cache_mb",
    "cache_iou",
    "heldout_iou",
    "peak_mb",
    "classes20_seconds",
    "fit_seconds",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--table", type=Path, help="write the table between its marks in this Markdown file")
    parser.add_argument("--steps", type=int, default=30, help="recorded steps (30 in the paper)")
    parser.add_argument("--epochs", type=int, default=20, help="measured epochs of the baseline; 500 are extrapolated")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: for a busy machine, with --threads 1"
    )
    parser.add_argument("--device", default="cpu", help="of the part sizes: cpu or cuda")
    parser.add_argument("--parts", default="sizes,embedded", help="sizes, embedded or both")
    options = parser.parse_args(arguments)
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu counts one thread's seconds; add --threads 1")
    torch.set_num_threads(options.threads)
    use_clock(options.clock)

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    figures: dict[str, Any] = {"kernel": kernel_name(), "clock": options.clock, "machine": _machine()}
    if "sizes" in options.parts:
        figures.update(sizes.measure(options.steps, options.epochs, log, options.device))
    if "embedded" in options.parts:
        from benchmarks import embedded  # needs the whole product

        figures.update(embedded.measure(log))
    for name in MAIN:
        if name in figures:
            print(f"{name}: {json.dumps(_rounded(figures[name]))}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.table:
        put_table(options.table, figures)
    return 0


def _machine() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
