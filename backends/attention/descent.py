"""The optimisers of a token: the paper's SGD (A.1), Adam, and L-BFGS, all keeping the best embedding seen."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from backends.contract import BackendError, Progress, TokenRecipe

Objective = Callable[[torch.Tensor], torch.Tensor]
_MIN_GAIN = 1e-4


class _Enough(Exception):
    """Raised inside the objective to leave an optimiser's own loop."""


@dataclass(slots=True)
class Descent:
    """Path of a descent.  ``losses[i]`` was measured at the embedding of pass i; ``best`` is the embedding of the least."""

    best: torch.Tensor
    best_pass: int = 0
    losses: list[float] = field(default_factory=list)
    reason: str = "passes"


def descend(
    objective: Objective,
    start: torch.Tensor,
    recipe: TokenRecipe,
    *,
    patience: int = 0,
    over: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
    on_pass: Callable[[int, float, torch.Tensor], None] | None = None,
) -> Descent:
    """Minimise ``objective`` from ``start`` with ``recipe.optimizer`` in at most ``recipe.epochs`` evaluations.

    One epoch is one evaluation of objective and gradient, for L-BFGS too (its line search evaluates several times an
    iteration).  ``over`` ends it before a pass (a deadline).  A loss that stops being finite ends the descent with the best embedding before it.

    Raises:
        BackendError: an unknown optimiser, a recipe's number out of range, or no finite loss at all.
    """
    check_recipe(recipe)
    tokens = start.detach().clone().requires_grad_(True)
    path = Descent(best=start.detach().clone())
    least = math.inf
    since = 0

    def evaluate() -> torch.Tensor:
        nonlocal least, since
        if len(path.losses) >= recipe.epochs:
            raise _Enough
        if path.losses and ((patience and since > patience) or over()):
            path.reason = "deadline" if over() else "converged"
            raise _Enough
        tokens.grad = None
        if not bool(torch.isfinite(tokens.detach()).all()):
            raise _Enough
        loss = objective(tokens)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _Enough
        loss.backward()
        number = len(path.losses)
        path.losses.append(value)
        since = 0 if value < least - _MIN_GAIN * abs(least) or number == 0 else since + 1
        if value < least:
            least, path.best_pass, path.best = value, number, tokens.detach().clone()
        if on_pass is not None:
            on_pass(number, value, tokens.detach().clone())
        if progress is not None:
            progress((number + 1) / recipe.epochs, f"Pass {number + 1} of at most {recipe.epochs}: loss {value:.4f}")
        return loss

    runner = _RUNNERS.get(recipe.optimizer)
    if runner is None:
        raise BackendError(f"optimizer is {recipe.optimizer!r}; one of {', '.join(sorted(_RUNNERS))} is allowed.")
    with contextlib.suppress(_Enough):
        runner(tokens, evaluate, recipe)
    if not path.losses:
        raise BackendError("The loss is not finite at the start embedding; start the token from its word again.")
    return path


def check_recipe(recipe: TokenRecipe) -> None:
    """Raises BackendError where a number of the recipe is out of range."""
    if recipe.epochs < 1:
        raise BackendError(f"epochs is {recipe.epochs}; at least 1 is needed.")
    for name, value, most in (("learning_rate", recipe.learning_rate, 1e6), ("decay", recipe.decay, 1.0)):
        if not 0 < value <= most:
            raise BackendError(f"{name} is {value}; above 0 and at most {most:g} is allowed.")
    if not 0 <= recipe.ridge < math.inf:
        raise BackendError(f"ridge is {recipe.ridge}; 0 or more is allowed.")


def _sgd(tokens: torch.Tensor, evaluate: Callable[[], torch.Tensor], recipe: TokenRecipe) -> None:
    """A.1: SGD, step size x ``decay`` each ``decay_every`` epochs."""
    optimizer = torch.optim.SGD([tokens], lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, recipe.decay_every), recipe.decay)
    _loop(optimizer, schedule, evaluate)


def _adam(tokens: torch.Tensor, evaluate: Callable[[], torch.Tensor], recipe: TokenRecipe) -> None:
    """Adam with a cosine from ``learning_rate`` to 0 over the epochs; ``decay`` is not used."""
    optimizer = torch.optim.Adam([tokens], lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
    _loop(optimizer, schedule, evaluate)


def _loop(
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    evaluate: Callable[[], torch.Tensor],
) -> None:
    while True:
        evaluate()
        optimizer.step()
        schedule.step()


def _lbfgs(tokens: torch.Tensor, evaluate: Callable[[], torch.Tensor], recipe: TokenRecipe) -> None:
    """L-BFGS with a strong-Wolfe line search; the first step has length ``learning_rate`` x min(1, 1 / |gradient|_1)."""
    optimizer = torch.optim.LBFGS(
        [tokens],
        lr=recipe.learning_rate,
        max_iter=recipe.epochs,
        max_eval=recipe.epochs,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(lambda: float(evaluate().detach()))


_RUNNERS: dict[str, Callable[[torch.Tensor, Callable[[], torch.Tensor], TokenRecipe], None]] = {
    "sgd": _sgd,
    "adam": _adam,
    "lbfgs": _lbfgs,
}
