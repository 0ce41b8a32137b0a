"""L-BFGS for two tokens and one mask an image (Eq. 6-7), made of as few passes over the queries as it can be.

Only delta = x_object - x_background matters, and logits are linear in it.  The logits at delta and along the search
direction are kept (a tenth of the queries), so a line search reads no queries: an iteration is one pass forward along the
direction and one pass back for the gradient.  It starts on a sixth of the steps and a coarser mask, whose gradients and
curvature are nearly those of all, and finishes on all of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from backends.attention.fit_loss import PreparedExample
from backends.attention.heatmaps import Projections
from backends.attention.key_products import key_products
from backends.attention.map_loss import MapLoss
from backends.attention.passes import Kernel, passes_over

#: Curvature pairs kept.
_HISTORY = 20
#: Steps of the first stage: every so-manieth, where at least this many remain.
_STRIDE = 6
#: Evaluations of the gradient in the first stage at most.
_COARSE_MOST = 30
#: Longest side of the first stage's loss: maps are 64 x 64, and resizing them to 512 x 512 takes longer than a sixth of the steps.
_COARSE_SIDE = 128
#: An iteration that lowers the loss by less than this part ends a stage.
_COARSE_GAIN, _FINE_GAIN = 5e-3, 2e-5
#: The first stage ends this far below the loss that is asked for.
_COARSE_MARGIN = 0.995
#: Trials of one line search.
_TRIALS = 6

#: (index into ``losses`` or -1 in the first stage, loss, delta, (h, w) map of the first example); may raise to cancel.
Seen = Callable[[int, float, torch.Tensor, torch.Tensor], None]


@dataclass(slots=True)
class PairPath:
    """Outcome.

    Attributes:
        delta: the best found, where ``losses[-1]`` was measured: the loss never rises.
        losses: loss on all steps at each evaluation of its gradient.
        passes: pairs of passes (forward and back), those on a part of the steps as that part.
        reason: why it ended: "converged", "target", "passes" or "deadline".
        maps: (h, w) object's map of each example at ``delta``, on all steps.
    """

    delta: torch.Tensor
    losses: list[float] = field(default_factory=list)
    passes: float = 0.0
    reason: str = "converged"
    maps: list[torch.Tensor] = field(default_factory=list)


@dataclass(slots=True)
class _Memory:
    """Inverse curvature of L-BFGS: pairs of steps and changes of the gradient."""

    pairs: list[tuple[torch.Tensor, torch.Tensor, float]] = field(default_factory=list)

    def add(self, step: torch.Tensor, change: torch.Tensor) -> None:
        curvature = float(torch.dot(step, change))
        if curvature > 1e-10 * float(step.norm() * change.norm()):
            self.pairs.append((step, change, curvature))
            del self.pairs[:-_HISTORY]

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """Minus the inverse curvature times the gradient (two loops)."""
        q = gradient.clone()
        factors = []
        for step, change, curvature in reversed(self.pairs):
            factor = float(torch.dot(step, q)) / curvature
            q -= factor * change
            factors.append(factor)
        if self.pairs:
            _, change, curvature = self.pairs[-1]
            q *= curvature / float(torch.dot(change, change))
        for (step, change, curvature), factor in zip(self.pairs, reversed(factors), strict=True):
            q += (factor - float(torch.dot(change, q)) / curvature) * step
        return -q


class _Problem:
    """Mean loss over examples at logits that are kept, and its gradient in delta."""

    def __init__(
        self, examples: Sequence[PreparedExample], projections: Projections, stride: int, kernel: Kernel
    ) -> None:
        bundles = [e.bundle.blocks() for e in examples]
        if stride > 1:
            bundles = [[y.at_steps(range(stride // 2, y.steps, stride)) for y in layers] for layers in bundles]
        self._layers = bundles
        self._passes = [passes_over(layers, kernel) for layers in bundles]
        self._losses = [
            MapLoss(e if stride == 1 else e.coarser(_COARSE_SIDE), layers)
            for e, layers in zip(examples, bundles, strict=True)
        ]
        self._names = list(dict.fromkeys(y.name for layers in bundles for y in layers))
        self._keys = key_products([projections[n] for n in self._names], examples[0].bundle.device, kernel)
        whole = sum(y.steps for e in examples for y in e.bundle.layers)
        self.share = sum(y.steps for layers in bundles for y in layers) / whole

    def project(self, delta: torch.Tensor) -> list[list[torch.Tensor]]:
        """Logits of each example and layer at delta: one pass."""
        keys = dict(zip(self._names, self._keys.keys(delta), strict=True))
        return [
            passes.project([keys[y.name] for y in layers])
            for passes, layers in zip(self._passes, self._layers, strict=True)
        ]

    def value(
        self, logits: list[list[torch.Tensor]], direction: list[list[torch.Tensor]] | None = None, length: float = 0.0
    ) -> float:
        total = 0.0
        for k, (passes, loss) in enumerate(zip(self._passes, self._losses, strict=True)):
            sums = passes.squash(logits[k], None if direction is None else direction[k], length)
            total += loss.value(sums)
        return total / len(self._losses)

    def value_and_gradient(self, logits: list[list[torch.Tensor]]) -> tuple[float, torch.Tensor, list[torch.Tensor]]:
        """(loss, gradient (E,), map of each example): one pass."""
        total, maps = 0.0, []
        at_keys: dict[str, torch.Tensor] = {}
        for k, (passes, loss) in enumerate(zip(self._passes, self._losses, strict=True)):
            value, slopes, found = loss.value_and_gradient(passes.squash(logits[k]))
            total += value
            maps.append(found)
            for layer, pulled in zip(self._layers[k], passes.pull(logits[k], slopes), strict=True):
                at_keys[layer.name] = at_keys[layer.name] + pulled if layer.name in at_keys else pulled
        gradient = self._keys.pulled([at_keys[n] for n in self._names])
        return total / len(self._losses), gradient / len(self._losses), maps


def fit_pair(
    examples: Sequence[PreparedExample],
    projections: Projections,
    start: torch.Tensor,
    *,
    ridge: float = 0.0,
    most: int = 100,
    stop_at: float = -math.inf,
    seen: Seen | None = None,
    over: Callable[[], bool] = lambda: False,
    kernel: Kernel = "auto",
) -> PairPath:
    """Minimise the mean loss + ridge / 2 * |delta - start|^2.

    The ridge is that of :class:`TokenRecipe` for two tokens that share their movement: each moves by half of delta's.

    Args:
        start: (E,) delta to start from.
        most: evaluations of the gradient at most, on all steps.
        stop_at: end as soon as the loss on all steps is no more than this.
        seen: told of each evaluation.
        over: asked before each iteration; True ends the fit with the best so far (a deadline).
    """
    memory = _Memory()
    path = PairPath(start.clone())
    strides = [_STRIDE, 1] if min(y.steps for e in examples for y in e.bundle.layers) >= 2 * _STRIDE else [1]
    if strides == [1] and min(y.steps for e in examples for y in e.bundle.layers) >= 4:
        strides = [min(y.steps for e in examples for y in e.bundle.layers), 1]
    delta = start.clone()
    for stride in strides:
        problem = _Problem(examples, projections, stride, kernel)
        fine = stride == 1
        delta = _descend(
            problem,
            delta,
            start,
            ridge,
            memory,
            path,
            # A deadline in the first stage still lets its result be measured once on all steps.
            most=_COARSE_MOST if not fine else 1 if path.reason == "deadline" else most,
            gain=_FINE_GAIN if fine else _COARSE_GAIN,
            # A part of the steps has nearly the same loss: a little below what is wanted is enough of it.
            stop_at=stop_at if fine else stop_at * _COARSE_MARGIN,
            seen=seen,
            over=over,
            fine=fine,
        )
    path.delta = delta
    return path


def _descend(
    problem: _Problem,
    delta: torch.Tensor,
    origin: torch.Tensor,
    ridge: float,
    memory: _Memory,
    path: PairPath,
    *,
    most: int,
    gain: float,
    stop_at: float,
    seen: Seen | None,
    over: Callable[[], bool],
    fine: bool,
) -> torch.Tensor:
    """One stage: iterations until nothing is gained; returns where it ended, the best because the loss only falls."""
    logits = problem.project(delta)
    before: tuple[torch.Tensor, torch.Tensor] | None = None
    last = math.inf
    slow = 0
    for number in range(most):
        value, gradient, path.maps = problem.value_and_gradient(logits)
        away = delta - origin
        value += ridge / 2 * float(torch.dot(away, away))
        gradient = gradient + ridge * away
        path.passes += problem.share
        if fine:
            path.losses.append(value)
        if seen is not None:
            seen(len(path.losses) - 1, value, delta, path.maps[0])
        if before is not None:
            memory.add(delta - before[0], gradient - before[1])
        slow = slow + 1 if last - value < gain * abs(last) else 0
        last = value
        path.reason = "target" if value <= stop_at else "deadline" if over() else "converged" if slow >= 2 else "passes"
        if path.reason != "passes" or number + 1 == most or not math.isfinite(value):
            return delta
        direction = memory.direction(gradient)
        slope = float(torch.dot(direction, gradient))
        if not slope < 0:
            memory.pairs.clear()
            direction, slope = -gradient, -float(torch.dot(gradient, gradient))
            if slope == 0:
                path.reason = "converged"
                return delta
        along = problem.project(direction)
        length = 1.0
        if not memory.pairs:
            # Nothing is known of the curvature yet: the first trial moves logits by about one.
            spread = math.sqrt(max(float(z.square().mean()) for part in along for z in part))
            length = 1.0 / max(spread, 1e-12)
        bend = ridge * float(torch.dot(direction, direction))
        tilt = ridge * float(torch.dot(direction, away))
        quadratic = ridge / 2 * float(torch.dot(away, away))

        def at(a: float, along=along, bend=bend, tilt=tilt, quadratic=quadratic) -> float:  # type: ignore[no-untyped-def]
            return problem.value(logits, along, a) + quadratic + a * tilt + a * a * bend / 2

        length, reached = _search(at, value, slope, length)
        if reached >= value:
            if not memory.pairs:
                path.reason = "converged"
                return delta
            # The curvature of the first stage, or rounding, misleads: begin again from the gradient.
            memory.pairs.clear()
            before = None
            continue
        before = (delta, gradient)
        delta = delta + length * direction
        for z, d in zip(logits, along, strict=True):
            for a, b in zip(z, d, strict=True):
                a.add_(b, alpha=length)
    return delta


def _search(at: Callable[[float], float], value: float, slope: float, length: float) -> tuple[float, float]:
    """(length, loss) near the least along a direction: trials at the parabola through what is known."""
    best, least = 0.0, value
    for _ in range(_TRIALS):
        reached = at(length)
        sag = reached - value - slope * length
        parabola = -slope * length * length / (2 * sag) if sag > 0 else 4 * length
        if not math.isfinite(reached) or reached > value + 1e-4 * slope * length:
            if best:
                break
            length = min(max(parabola, 0.1 * length), 0.5 * length) if math.isfinite(reached) else 0.1 * length
            continue
        if reached >= least:
            break
        best, least = length, reached
        if 0.4 * length <= parabola <= 2.5 * length:
            break
        length = min(max(parabola, 0.25 * length), 4 * length)
    return best, least
