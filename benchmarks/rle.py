"""``python -m benchmarks.rle``: the brush codec against label-studio-sdk's own, on the masks both write and read.

The SDK runs in Label Studio's environment (``make install`` makes ``.venv-label-studio``), in a process of its own; our codec
runs before and after it, so that a machine that slows down meanwhile slows both.  Each time is the median of repeats; what
is reported are ratios of this run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ovam_labeler.tools.label_studio.rle import decode_mask, encode_mask

ENVIRONMENT = Path(__file__).resolve().parents[1] / ".venv-label-studio"

#: Side in pixels and repeats of each picture.
SIZES = {"512": (512, 15), "2048": (2048, 7)}

_THEIRS = """
import json, statistics, sys, time
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle

def median(work, repeats):
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)

figures, streams = {}, {}
for name, mask in np.load(sys.argv[1]).items():
    repeats = json.loads(sys.argv[2])[name]
    picture = mask.astype(np.uint8) * 255
    stream = mask2rle(picture)
    figures[name] = {
        "encode": median(lambda: mask2rle(picture), repeats),
        "decode": median(lambda: decode_rle(stream), repeats),
        "bytes": len(stream),
        "same": bool((decode_rle(json.loads(json.dumps(stream))).reshape(*mask.shape, 4)[..., 3] > 0).tobytes() == mask.tobytes()),
    }
print(json.dumps(figures))
"""


def blobs(side: int, seed: int = 0) -> np.ndarray:
    """A mask of a few smooth objects, bool (side, side): random bumps above their 70 % quantile."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    field = np.zeros((side, side))
    for _ in range(12):
        cy, cx, size = rng.random(), rng.random(), 0.05 + 0.1 * rng.random()
        field += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    return field > np.quantile(field, 0.7)


def figures(environment: Path = ENVIRONMENT) -> dict[str, Any]:
    """Seconds of both codecs, and how many times as long the SDK's takes (``encode_ratio``, ``decode_ratio``).

    Raises:
        FileNotFoundError: Label Studio's environment is not installed.
    """
    python = environment / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{python} is missing; `make install` makes Label Studio's environment.")
    masks = {name: blobs(side) for name, (side, _) in SIZES.items()}
    repeats = {name: count for name, (_, count) in SIZES.items()}
    before = _ours(masks, repeats)
    with tempfile.TemporaryDirectory(prefix="ovam-rle-") as folder:
        np.savez(Path(folder) / "masks.npz", **masks)
        command = [str(python), "-c", _THEIRS, str(Path(folder) / "masks.npz"), json.dumps(repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    after = _ours(masks, repeats)
    found: dict[str, Any] = {}
    for name in SIZES:
        ours = {k: statistics.mean([before[name][k], after[name][k]]) for k in ("encode", "decode")}
        found[name] = {
            "ours": ours | {"bytes": before[name]["bytes"]},
            "sdk": theirs[name],
            "encode_ratio": theirs[name]["encode"] / ours["encode"],
            "decode_ratio": theirs[name]["decode"] / ours["decode"],
        }
    return found


def _ours(masks: dict[str, np.ndarray], repeats: dict[str, int]) -> dict[str, dict[str, float]]:
    found = {}
    for name, mask in masks.items():
        stream = encode_mask(mask)
        found[name] = {
            "encode": _median(lambda mask=mask: encode_mask(mask), repeats[name]),
            "decode": _median(lambda stream=stream, mask=mask: decode_mask(stream, *mask.shape), repeats[name]),
            "bytes": float(len(stream)),
        }
    return found


def _median(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rle", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    found = figures()
    for name, row in found.items():
        ours, sdk = row["ours"], row["sdk"]
        print(
            f"{name} x {name} blobs: encode {1e3 * ours['encode']:.1f} ms, SDK {1e3 * sdk['encode']:.1f} ms "
            f"({row['encode_ratio']:.1f} x as long); decode {1e3 * ours['decode']:.1f} ms, SDK {1e3 * sdk['decode']:.1f} ms "
            f"({row['decode_ratio']:.1f} x); {ours['bytes']:.0f} and {sdk['bytes']:.0f} bytes"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
