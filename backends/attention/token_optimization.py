"""Token optimization, Eq. 6-7 (section 3.3, appendix A.1): find the X' whose maps match annotated masks.

The queries stay frozen; only the few embeddings of X' move.  The loss is the binary cross-entropy of the *mean* map
(Eq. 5 divided by steps x heads x layers), which lies in 0..1, unlike the paper's sum.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from backends.attention.descent import check_recipe, descend
from backends.attention.fit_loss import FitExample, PreparedExample, bce_loss, prepare_examples
from backends.attention.heatmaps import Projections, heat_maps, resize_maps
from backends.attention.pair_fit import fit_pair
from backends.contract import BackendError, Progress, TokenFit, TokenRecipe

__all__ = ["FitExample", "choose_ridge", "initial_embedding", "learn_token"]

#: Receives (pass, loss, embedding (n, E)) after each pass; for live previews.  May raise to cancel.
PassHook = Callable[[int, float, torch.Tensor], None]
#: Receives (loss, (h, w) map); may raise to cancel.
Preview = Callable[[float, np.ndarray], None]
#: (maps (n, H, W) in 0..1, example) -> scalar loss.
Loss = Callable[[torch.Tensor, PreparedExample], torch.Tensor]


def initial_embedding(
    background: np.ndarray, noun: np.ndarray, tokens: int = 2, *, seed: int = 0, spread: float = 0.05
) -> np.ndarray:
    """X' to start from: row 0 the background (the start token's embedding), the others the class noun (A.1).

    With more than two tokens the object rows would be equal and stay equal; rows 2.. get Gaussian noise of ``spread`` times
    the noun's root mean square, drawn from ``seed``.

    Args:
        background, noun: (E,).
        tokens: rows, >= 2.

    Returns:
        (tokens, E) float32.
    """
    if tokens < 2:
        raise BackendError(f"tokens is {tokens}; a learned embedding has at least 2 rows, background and object.")
    start = np.stack([background] + [noun] * (tokens - 1)).astype(np.float32)
    scale = float(np.sqrt(np.mean(np.square(noun, dtype=np.float64)))) * spread
    noise = np.random.default_rng(seed).standard_normal((tokens - 2, start.shape[1])) * scale
    start[2:] += noise.astype(np.float32)
    return start


def learn_token(
    examples: Sequence[FitExample],
    projections: Projections,
    start: np.ndarray,
    recipe: TokenRecipe,
    *,
    loss_at: Literal["target", "map"] = "target",
    threshold: float = 0.8,
    patience: int = 0,
    stop_at: float = -math.inf,
    deadline: float | None = None,
    held_out: Sequence[FitExample] = (),
    progress: Progress | None = None,
    on_pass: PassHook | None = None,
    preview: Preview | None = None,
    loss_fn: Loss = bce_loss,
) -> TokenFit:
    """Optimise X' on one or several annotated images (Eq. 6).

    ``sgd`` is the paper's optimiser, pass by pass; ``lbfgs`` with two tokens and one mask an image takes the short way of
    :mod:`backends.attention.pair_fit` and ends when nothing more is gained.

    Args:
        examples: annotated images; captures may differ in size and steps.
        projections: key projections by layer name.
        start: (n, E) where to begin, row 0 = background; n = ``recipe.tokens``.
        recipe: optimiser, passes, ridge, balance.
        loss_at: resolution of the loss.  ``"target"`` upsamples the map to the target (A.1; targets over 512 pixels a
            side are area-averaged to 512 first).  ``"map"`` area-averages target and weight to the map's grid: much
            cheaper, and right for models whose maps were trained against area fractions.
        threshold: relative threshold (Eq. 9's tau) with which ``train_iou`` is measured.
        patience: stop after so many passes without an improvement of the best loss by 0.01 %; 0 = never.
        stop_at: loss at which a two-token ``lbfgs`` fit is good enough.
        deadline: ``time.monotonic()`` after which no further pass starts; the best so far is the result.
        held_out: annotated images that are not learned from; the result's ``held_out_iou`` is of them.
        progress: called each pass with the fraction done and one sentence; may raise to cancel.
        on_pass: called each pass with the embedding the loss belongs to.
        preview: called with the loss and the object's map (h, w) in 0..1 of the first example, from the first pass of a
            two-token ``lbfgs`` fit on.
        loss_fn: replaces the loss (for tests and ablations).

    Returns:
        The best embedding seen, the loss of every pass, and the IoU with the targets pooled over the examples.

    Raises:
        BackendError: no examples; bad shapes or values; an all-zero weight; no object pixel in any example; a start
            with NaN; a loss that is not finite from the first pass.
    """
    if start.ndim != 2 or start.shape[0] != recipe.tokens:
        raise BackendError(f"The start embedding has shape {start.shape}; the recipe asks for ({recipe.tokens}, E).")
    prepared = prepare_examples(examples, tokens=recipe.tokens, at=loss_at, balance=recipe.balance)
    origin = torch.as_tensor(np.asarray(start), dtype=torch.float32)
    over = (lambda: time.monotonic() >= deadline) if deadline is not None else (lambda: False)
    pair = len(start) == 2 and loss_fn is bce_loss and all(len(e.target) == 1 for e in prepared)
    if recipe.optimizer == "lbfgs" and pair:
        fit, maps = _fit_pair(prepared, projections, origin, recipe, stop_at, over, progress, on_pass, preview)
    else:
        fit = _fit_any(prepared, projections, origin, recipe, loss_fn, patience, over, progress, on_pass)
        maps = _object_maps(prepared, projections, fit.embedding)
    iou = pooled_iou(maps, examples, threshold)
    if not held_out:
        return replace(fit, train_iou=iou)
    unseen = _object_maps(held_out, projections, fit.embedding)
    return replace(fit, train_iou=iou, held_out_iou=pooled_iou(unseen, held_out, threshold))


def _object_maps(
    examples: Sequence[PreparedExample | FitExample], projections: Projections, embedding: np.ndarray
) -> list[torch.Tensor]:
    """(h, w) mean map of rows 1.. on each example."""
    with torch.no_grad():
        tokens = torch.from_numpy(embedding)
        return [heat_maps(e.bundle, projections, tokens)[1:].mean(0) for e in examples]


def _fit_any(
    prepared: list[PreparedExample],
    projections: Projections,
    origin: torch.Tensor,
    recipe: TokenRecipe,
    loss_fn: Loss,
    patience: int,
    over: Callable[[], bool],
    progress: Progress | None,
    on_pass: PassHook | None,
) -> TokenFit:
    """Any optimiser, loss and number of tokens, through autograd."""

    def objective(tokens: torch.Tensor) -> torch.Tensor:
        losses = [loss_fn(e.fit_to_target(heat_maps(e.bundle, projections, tokens)), e) for e in prepared]
        loss = torch.stack([x.to(tokens.device) for x in losses]).mean()
        if recipe.ridge:
            loss = loss + recipe.ridge * (tokens - origin).square().sum()
        return loss

    path = descend(objective, origin, recipe, patience=patience, over=over, progress=progress, on_pass=on_pass)
    return TokenFit(
        embedding=path.best.cpu().numpy(),
        losses=tuple(path.losses),
        best_epoch=path.best_pass,
        train_iou=0.0,
        ridge=recipe.ridge,
        passes=float(len(path.losses)),
        reason=path.reason,
    )


def _fit_pair(
    prepared: list[PreparedExample],
    projections: Projections,
    origin: torch.Tensor,
    recipe: TokenRecipe,
    stop_at: float,
    over: Callable[[], bool],
    progress: Progress | None,
    on_pass: PassHook | None,
    preview: Preview | None,
) -> tuple[TokenFit, list[torch.Tensor]]:
    """L-BFGS in delta, and each example's map (h, w) at its end; see :mod:`backends.attention.pair_fit`."""
    check_recipe(recipe)
    middle, half = origin.mean(0), torch.tensor([[-0.5], [0.5]])
    delta = (origin[1] - origin[0]).to(prepared[0].bundle.device)

    def embedding(delta: torch.Tensor) -> torch.Tensor:
        # Both tokens move, each by half: what gradient descent on both would do.
        return middle + half * delta.cpu()

    def seen(number: int, loss: float, delta: torch.Tensor, found: torch.Tensor) -> None:
        if not math.isfinite(loss):
            return
        if number >= 0 and on_pass is not None:
            on_pass(number, loss, embedding(delta))
        if preview is not None:
            preview(loss, found.cpu().numpy())
        if progress is not None:
            done = (number + 1) / recipe.epochs
            progress(done, f"Pass {number + 1} of at most {recipe.epochs}: loss {loss:.4f}")

    path = fit_pair(
        prepared,
        projections,
        delta,
        ridge=recipe.ridge,
        most=recipe.epochs,
        stop_at=stop_at,
        seen=seen,
        over=over,
    )
    if not path.losses or not math.isfinite(path.losses[-1]):
        raise BackendError("The loss is not finite at the start embedding; start the token from its word again.")
    fit = TokenFit(
        embedding=embedding(path.delta).numpy(),
        losses=tuple(path.losses),
        best_epoch=int(np.argmin(path.losses)),
        train_iou=0.0,
        ridge=recipe.ridge,
        passes=path.passes,
        reason=path.reason,
    )
    return fit, path.maps


def choose_ridge(
    examples: Sequence[FitExample],
    held_out: Sequence[FitExample],
    projections: Projections,
    start: np.ndarray,
    recipe: TokenRecipe,
    ridges: Sequence[float],
    **options: Any,
) -> TokenFit:
    """The fit with the ridge whose token does best on held-out examples; of equals the stronger ridge.

    Args:
        held_out: annotated images that are not learned from.
        ridges: to choose from.
        options: as of :func:`learn_token`.

    Raises:
        BackendError: no ridge or no held-out example is given, or as :func:`learn_token`.
    """
    if not ridges or not held_out:
        raise BackendError("A ridge is chosen among at least one, on at least one held-out image.")
    fits = [
        learn_token(examples, projections, start, replace(recipe, ridge=ridge), held_out=held_out, **options)
        for ridge in sorted(ridges, reverse=True)
    ]
    return max(fits, key=lambda fit: fit.held_out_iou or 0.0)


def pooled_iou(maps: Sequence[torch.Tensor], examples: Sequence[FitExample], threshold: float) -> float:
    """IoU of the object's thresholded map with the targets, intersections and unions added over the examples.

    Args:
        maps: (h, w) of each example's object.
    """
    inside = union = 0.0
    for found, example in zip(maps, examples, strict=True):
        target = example.target if example.target.ndim == 2 else example.target[1:].max(0)
        weight = example.weight > 0
        size = (target.shape[0], target.shape[1])
        soft = resize_maps(found[None], size)[0].cpu().numpy()
        low, high = float(soft.min()), float(soft.max())
        mask = (soft - low >= threshold * (high - low)) if high > low else np.zeros(size, bool)
        truth = target >= 0.5
        inside += float((mask & truth & weight).sum())
        union += float(((mask | truth) & weight).sum())
    return inside / union if union else 0.0
