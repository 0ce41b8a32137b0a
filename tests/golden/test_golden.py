"""The paper's reference and this implementation give the same numbers (see README.md beside this file).

The reference's odd losses are written out here and nowhere in the product.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backends.attention.fit_loss import PreparedExample, bce_loss
from backends.attention.heatmaps import SUM, Activation, Aggregation, class_maps, heat_maps, layer_heat_maps
from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle
from backends.attention.token_optimization import FitExample, learn_token
from backends.contract import TokenRecipe, TokenSet

HERE = Path(__file__).parent
MODEL = np.load(HERE / "model_and_queries.npz")
FORWARD = np.load(HERE / "forward.npz")
OPTIMIZE = np.load(HERE / "optimize.npz")
NAMES = [str(n) for n in MODEL["layer_names"]]

PROJECTIONS = {
    name: KeyProjection(name, torch.from_numpy(MODEL[f"to_k_{i}"]), int(MODEL["heads"][i]), float(MODEL["scale"][i]))
    for i, name in enumerate(NAMES)
}


def bundle(image: int) -> QueryBundle:
    layers = []
    for i, name in enumerate(NAMES):
        queries = torch.from_numpy(MODEL[f"q_{i}_img{image}"])
        side = int(queries.shape[2] ** 0.5)
        layers.append(LayerQueries(name, int(MODEL["heads"][i]), side, side, float(MODEL["scale"][i]), queries))
    return QueryBundle(tuple(layers))


def off(found: np.ndarray, golden: np.ndarray) -> float:
    """Largest deviation relative to the largest golden value."""
    assert found.shape == golden.shape
    return float(np.abs(found - golden).max() / np.abs(golden).max())


@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("tokens", [2, 5, 77])
def test_heat_maps(image: int, tokens: int) -> None:
    found = heat_maps(bundle(image), PROJECTIONS, torch.from_numpy(FORWARD[f"emb_{tokens}"]), aggregation=SUM)
    assert off(found.numpy(), FORWARD[f"heat_{tokens}_native"][image]) < 1e-4


@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize(
    ("name", "aggregation", "activation"),
    [("mean_layers", Aggregation("sum", "sum", "mean"), "softmax"), ("linear", SUM, "linear")],
)
def test_variants(image: int, name: str, aggregation: Aggregation, activation: Activation) -> None:
    found = heat_maps(
        bundle(image), PROJECTIONS, torch.from_numpy(FORWARD["emb_5"]), aggregation=aggregation, activation=activation
    )
    assert off(found.numpy(), FORWARD[f"heat_5_native_{name}"][image]) < 1e-4


@pytest.mark.parametrize("image", [0, 1])
def test_text_heat_map_as_classes(image: int) -> None:
    """A prompt with its start and end tokens, asked for as one class a column; means times 54 are the reference's sums."""
    prompt = torch.from_numpy(FORWARD["text_emb_a_cat_with_special"])
    queries = [(TokenSet(prompt, (column,)),) for column in range(len(prompt))]
    found = class_maps(bundle(image), PROJECTIONS, queries).numpy() * 54
    assert off(found, FORWARD["text_heat_a_cat_with_special"][image]) < 1e-4


@pytest.mark.parametrize("image", [0, 1])
def test_each_layer(image: int) -> None:
    found = layer_heat_maps(bundle(image), PROJECTIONS, torch.from_numpy(FORWARD["emb_2"]), aggregation=SUM)
    for i, name in enumerate(NAMES):
        assert off(found[name].numpy(), FORWARD[f"layer_{i}_heat_2"][image]) < 1e-4


def cross_entropy(maps: torch.Tensor, example: PreparedExample) -> torch.Tensor:
    return F.cross_entropy(maps[None], example.target[None])


def min_max_cross_entropy(maps: torch.Tensor, example: PreparedExample) -> torch.Tensor:
    low, high = maps.min(), maps.max()
    return cross_entropy((maps - low) / (high - low), example)


def sum_cross_entropy(maps: torch.Tensor, example: PreparedExample) -> torch.Tensor:
    return cross_entropy(maps / maps.sum(0, keepdim=True), example)


VARIANTS = {
    "default_int3720_is_minmax_CE": min_max_cross_entropy,
    "float_normaliser_CE": cross_entropy,
    "sum_normalise_CE": sum_cross_entropy,
    "paper_BCE_float_normaliser": bce_loss,
}


def descend(
    name: str, loss: Callable[[torch.Tensor, PreparedExample], torch.Tensor], start: np.ndarray, target: np.ndarray
) -> None:
    golden = OPTIMIZE[f"{name}_losses"]
    path: list[np.ndarray] = []
    # One pass more than the reference: its last embedding is the one after the last step.
    recipe = TokenRecipe("sgd", len(golden) + 1, 3.0, 10, 0.7, tokens=len(start))
    fit = learn_token(
        [FitExample(bundle(0), target.astype(np.float32), np.ones(target.shape[-2:], np.float32))],
        PROJECTIONS,
        start,
        recipe,
        loss_fn=loss,
        on_pass=lambda _pass, _loss, embedding: path.append(embedding.numpy()),
    )
    assert off(np.array(fit.losses[:-1]), golden) < 1e-4
    assert off(path[len(golden)], OPTIMIZE[f"{name}_final"]) < 1e-4
    if f"{name}_x_traj" in OPTIMIZE:
        assert off(np.stack(path[:-1:5]), OPTIMIZE[f"{name}_x_traj"]) < 1e-4


@pytest.mark.parametrize("name", VARIANTS)
def test_trajectory(name: str) -> None:
    descend(name, VARIANTS[name], OPTIMIZE["emb0"], OPTIMIZE["target"][0])


def test_papers_loss_with_a_mask_instead_of_two_channels() -> None:
    """The one-channel shortcut is the paper's loss, not another one."""
    descend("paper_BCE_float_normaliser", bce_loss, OPTIMIZE["emb0"], OPTIMIZE["target"][0, 1])


def test_five_tokens() -> None:
    descend("five", cross_entropy, OPTIMIZE["five_emb0"], OPTIMIZE["five_target"][0])
