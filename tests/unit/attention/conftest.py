"""A small made-up model and captures of it, non-square and with several resolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle

WIDTH = 12
LAYERS = {"down": (2, 8, 1), "middle": (4, 4, 2), "up": (2, 8, 1)}  # heads, d_head, down-sampling factor


@pytest.fixture
def projections() -> dict[str, KeyProjection]:
    generator = torch.Generator().manual_seed(5)
    return {
        name: KeyProjection(name, torch.randn(heads * d, WIDTH, generator=generator), heads, d**-0.5)
        for name, (heads, d, _) in LAYERS.items()
    }


@pytest.fixture
def make_bundle() -> Callable[..., QueryBundle]:
    def make(height: int = 8, width: int = 12, steps: int = 3, seed: int = 0) -> QueryBundle:
        generator = torch.Generator().manual_seed(seed)
        return QueryBundle(
            tuple(
                LayerQueries(
                    name,
                    heads,
                    height // factor,
                    width // factor,
                    d**-0.5,
                    torch.randn(steps, heads, (height // factor) * (width // factor), d, generator=generator),
                )
                for name, (heads, d, factor) in LAYERS.items()
            )
        )

    return make


@pytest.fixture
def embeddings() -> Callable[[int, int], torch.Tensor]:
    def make(n: int, seed: int = 1) -> torch.Tensor:
        return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))

    return make
