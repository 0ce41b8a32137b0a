"""Learning tokens on annotated scenes, all tokens at once; the same arithmetic as the application's token recipes.

An application token has two rows, background and object, that move in opposite directions by equal amounts. Here
only their difference moves: Adam's rate counts twice, and a ridge half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from .bench import Queries
from .grounding import Grounding, cross_entropy


@dataclass(frozen=True)
class Fit:
    """``how``: adam, steps (the learned normalised steps of training) or lbfgs. ``start``: noun, thing or thing_noun."""

    how: str = "adam"
    start: str = "thing_noun"
    epochs: int = 100
    rate: float = 0.1
    ridge: float = 0.0
    balance: bool = True

    @property
    def recipe(self) -> dict[str, object]:
        """As the application writes it (no ``steps`` there)."""
        return {
            "optimizer": self.how,
            "start": self.start,
            "epochs": self.epochs,
            "learning_rate": self.rate,
            "ridge": self.ridge,
            "balance": self.balance,
        }

    @property
    def title(self) -> str:
        return f"{self.how} {self.start} x{self.epochs} rate {self.rate:g} ridge {self.ridge:g}{'' if self.balance else ' plain'}"


def fit_of(recipe: Mapping[str, Any]) -> Fit:
    """The fit of a recipe in ``ovam.json``."""
    renamed = {"how": recipe["optimizer"], "rate": recipe["learning_rate"], **recipe}
    return Fit(**{f.name: renamed[f.name] for f in fields(Fit) if f.name in renamed})


def scene_loss(maps: Tensor, target: Tensor, balance: bool) -> Tensor:
    """(S,) cross-entropy of (S, 16, 16) maps; balanced: half on object, half on background."""
    error = cross_entropy(maps, target)
    if not balance:
        return error.mean((1, 2))
    on, off = target.sum((1, 2)).clamp(min=1e-6), (1 - target).sum((1, 2)).clamp(min=1e-6)
    return 0.5 * ((error * target).sum((1, 2)) / on + (error * (1 - target)).sum((1, 2)) / off)


def learn(
    net: Grounding, start: Tensor, queries: Queries, target: Tensor, owner: Tensor, origin: Tensor, fit: Fit
) -> Tensor:
    """Tokens (T, E) from annotated scenes: ``owner`` (S,) says whose scene each is; losses are means over a token's scenes."""
    share = 1 / torch.bincount(owner, minlength=len(origin)).float()[owner]

    def losses(tokens: Tensor) -> Tensor:
        maps = net.pair_maps(queries, tokens[owner][:, None], start)[0][:, 0]
        each = torch.zeros(len(tokens)).index_add(0, owner, scene_loss(maps, target, fit.balance) * share)
        return each + 0.5 * fit.ridge * (tokens - origin).square().sum(1)

    if fit.how == "adam":
        return _adam(losses, origin, fit)
    if fit.how == "lbfgs":
        return _lbfgs(net, start, queries, target, owner, origin, fit)
    tokens = origin
    for step in range(fit.epochs):
        tokens = tokens.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(tokens).sum(), tokens)
        size = net.log_steps[min(step, 1)].exp() * fit.rate
        tokens = tokens - size * gradient / (gradient.norm(dim=-1, keepdim=True) + 1e-8)
    return tokens.detach()


def _adam(losses: Callable[[Tensor], Tensor], origin: Tensor, fit: Fit) -> Tensor:
    tokens = origin.clone().requires_grad_()
    optimizer = torch.optim.Adam([tokens], 2 * fit.rate)
    least, best = torch.full((len(origin),), math.inf), origin.clone()
    for epoch in range(fit.epochs):
        optimizer.param_groups[0]["lr"] = fit.rate * (1 + math.cos(math.pi * epoch / fit.epochs))
        each = losses(tokens)
        better = each.detach() < least
        least = torch.where(better, each.detach(), least)
        best = torch.where(better[:, None], tokens.detach(), best)
        optimizer.zero_grad()
        each.sum().backward()
        optimizer.step()
    return best


def _lbfgs(
    net: Grounding, start: Tensor, queries: Queries, target: Tensor, owner: Tensor, origin: Tensor, fit: Fit
) -> Tensor:
    return torch.cat(
        [
            _lbfgs_one(net, start, [q[owner == n] for q in queries], target[owner == n], origin[n : n + 1], fit)
            for n in range(len(origin))
        ]
    )


def _lbfgs_one(net: Grounding, start: Tensor, queries: Queries, target: Tensor, origin: Tensor, fit: Fit) -> Tensor:
    token = origin.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [token], max_iter=fit.epochs, max_eval=fit.epochs, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        maps = net.pair_maps(queries, token, start)[0][:, 0]
        loss = scene_loss(maps, target, fit.balance).mean() + 0.5 * fit.ridge * (token - origin).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return token.detach()
