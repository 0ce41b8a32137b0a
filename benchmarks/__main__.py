"""``make bench``: heat maps and token optimization against the plain formula, at Stable Diffusion 1.5's shapes.

The baseline is Eq. 5 in plain torch fp32, one class after the other, and autograd through it for the epochs.  Both sides
read the same structured random queries.  Printed figures are ratios of medians in this run; absolute times move with
the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from backends.attention.fit_loss import FitExample
from backends.attention.heatmaps import class_maps
from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle
from backends.attention.token_optimization import learn_token
from backends.contract import TokenRecipe, TokenSet

#: (grid side, heads, head size, layers): the cross-attention layers of the down and up blocks at 512 x 512 pixels.
SHAPES = ((64, 8, 40, 5), (32, 8, 80, 5), (16, 8, 160, 5))
WIDTH = 768


def synthetic(steps: int, seed: int = 0) -> tuple[QueryBundle, dict[str, KeyProjection]]:
    """Queries with spatial structure: smooth random fields that change slowly over the steps."""
    generator = torch.Generator().manual_seed(seed)
    layers, projections = [], {}
    for side, heads, size, count in SHAPES:
        for k in range(count):
            coarse = torch.randn(heads * size, 1, 8, 8, generator=generator).transpose(0, 1)
            field = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)[0].reshape(heads, size, -1)
            base = field.transpose(1, 2)
            drift = torch.linspace(0.8, 1.2, steps)[:, None, None, None]
            queries = base[None] * drift + 0.1 * torch.randn(steps, heads, side * side, size, generator=generator)
            name = f"grid{side}.layer{k}"
            layers.append(LayerQueries(name, heads, side, side, size**-0.5, queries.contiguous()))
            weight = torch.randn(heads * size, WIDTH, generator=generator) * (2.0 / WIDTH**0.5)
            projections[name] = KeyProjection(name, weight, heads, size**-0.5)
    return QueryBundle(tuple(layers)), projections


def plain_maps(bundle: QueryBundle, projections: dict[str, KeyProjection], tokens: torch.Tensor) -> torch.Tensor:
    """Eq. 5 as it is written: (n, E) -> (n, H, W), mean over steps, heads and layers."""
    total: torch.Tensor | float = 0.0
    for layer in bundle.layers:
        keys = (tokens @ projections[layer.name].weight.T).reshape(len(tokens), layer.heads, -1)
        logits = torch.einsum("thpd,nhd->thpn", layer.queries, keys) * layer.scale
        attention = logits.softmax(-1).mean((0, 1)).T.reshape(1, len(tokens), layer.height, layer.width)
        total = total + F.interpolate(attention, bundle.size, mode="bilinear", align_corners=False)[0]
    assert isinstance(total, torch.Tensor)
    return total / len(bundle.layers)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--steps", type=int, default=5, help="recorded steps (30 in the paper; memory grows with them)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    bundle, projections = synthetic(options.steps)
    words = torch.randn(20, 2, WIDTH, generator=torch.Generator().manual_seed(1))
    queries = [(TokenSet(pair, (1,)),) for pair in words]
    with torch.no_grad():
        ours = class_maps(bundle, projections, queries)
        theirs = torch.stack([plain_maps(bundle, projections, pair)[1] for pair in words])
        error = float((ours - theirs).abs().max())
        one_pass = median_seconds(lambda: class_maps(bundle, projections, queries), options.repeats)
        one_by_one = median_seconds(lambda: [plain_maps(bundle, projections, pair) for pair in words], options.repeats)

    target = np.zeros((512, 512), np.float32)
    target[128:384, 160:352] = 1.0
    example = FitExample(bundle, target, np.ones_like(target))
    truth = torch.from_numpy(np.stack([1 - target, target]))
    epochs = 3

    def plain_epochs() -> None:
        tokens = words[0].clone().requires_grad_()
        optimizer = torch.optim.SGD([tokens], lr=100.0)
        for _ in range(epochs):
            maps = F.interpolate(plain_maps(bundle, projections, tokens)[None], (512, 512), mode="bilinear")[0]
            loss = F.binary_cross_entropy(maps, truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    recipe = TokenRecipe(epochs=epochs)
    fit = median_seconds(lambda: learn_token([example], projections, words[0].numpy(), recipe), options.repeats)
    plain_fit = median_seconds(plain_epochs, options.repeats)

    figures = {
        "steps": options.steps,
        "threads": options.threads,
        "queries_mb": sum(layer.queries.numel() * 4 for layer in bundle.layers) / 1e6,
        "classes20": one_by_one / one_pass,
        "classes20_max_error": error,
        "epoch": plain_fit / fit,
    }
    print(
        f"20 classes in one pass: {figures['classes20']:.2f} x the plain formula class by class (largest difference {error:.1e})"
    )
    print(f"one epoch of token optimization: {figures['epoch']:.2f} x the plain formula through autograd")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
