"""What a verification collects: checks that pass or fail, figures, and the file that is posted back."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

#: Of the file; raised when a reader of it would have to change.
FORMAT = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about the model that held or did not.  ``value`` must be at most ``limit`` where there is one."""

    name: str
    ok: bool
    sentence: str
    value: float | None = None
    limit: float | None = None


@dataclass(slots=True)
class Results:
    """Collected in order; ``figures`` is plain JSON."""

    figures: dict[str, Any]
    checks: list[Check] = field(default_factory=list)

    def at_most(self, name: str, value: float, limit: float, sentence: str) -> None:
        """A check that a number stays within its limit; NaN fails."""
        self.checks.append(Check(name, bool(value <= limit), sentence, float(value), limit))

    def holds(self, name: str, ok: bool, sentence: str) -> None:
        self.checks.append(Check(name, bool(ok), sentence))

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    def to_json(self) -> str:
        body = {"format": FORMAT, "ok": self.ok, "checks": [asdict(c) for c in self.checks], **self.figures}
        return json.dumps(_finite(body), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Raises OSError."""
        path.write_text(self.to_json(), encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity; what is neither a number nor finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def timed(device: str, work: Callable[[], T]) -> tuple[T, float]:
    """The result and the seconds it took, the device's queue emptied before and after."""
    _wait(device)
    begin = time.perf_counter()
    result = work()
    _wait(device)
    return result, time.perf_counter() - begin


def median_seconds(device: str, work: Callable[[], object], repeats: int = 5) -> float:
    """Median of some repeats after one that warms up."""
    work()
    taken = sorted(timed(device, work)[1] for _ in range(repeats))
    return taken[len(taken) // 2]


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
