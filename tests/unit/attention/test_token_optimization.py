from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.attention.heatmaps import class_maps, heat_maps
from backends.attention.token_optimization import FitExample, initial_embedding, learn_token
from backends.contract import BackendError, TokenRecipe, TokenSet

RECIPES = {
    "sgd": TokenRecipe("sgd", epochs=60, learning_rate=20.0, decay_every=30),
    "adam": TokenRecipe("adam", epochs=60, learning_rate=0.2),
    "lbfgs": TokenRecipe("lbfgs", epochs=30, learning_rate=1.0),
}


@pytest.fixture
def example(make_bundle, projections, embeddings):
    """An image whose mask some token really explains: the upper quarter of a hidden token's map, at four times its size."""

    def make(seed: int = 0, height: int = 8, width: int = 12, scale: int = 4) -> FitExample:
        bundle = make_bundle(height, width, steps=2, seed=seed)
        soft = heat_maps(bundle, projections, embeddings(2, 99) * 1.5)[1]
        mask = (soft > soft.flatten().quantile(0.75)).numpy().astype(np.float32)
        return FitExample(
            bundle, np.kron(mask, np.ones((scale, scale), np.float32)), np.ones((height * scale, width * scale))
        )

    return make


@pytest.mark.parametrize("at", ["target", "map"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_token_is_learned(example, projections, embeddings, name, at) -> None:
    start = embeddings(2).numpy()
    fit = learn_token([example()], projections, start, RECIPES[name], loss_at=at, threshold=0.5)
    before = learn_token([example()], projections, start, replace(RECIPES[name], epochs=1), threshold=0.5)
    assert fit.embedding.shape == (2, 12) and fit.embedding.dtype == np.float32
    assert min(fit.losses) < 0.8 * fit.losses[0]
    assert fit.train_iou > before.train_iou
    assert len(fit.losses) <= RECIPES[name].epochs


@pytest.mark.parametrize("name", RECIPES)
def test_the_best_embedding_is_kept(example, projections, embeddings, name) -> None:
    seen: list[np.ndarray] = []
    rough = replace(RECIPES[name], learning_rate=RECIPES[name].learning_rate * (30 if name != "lbfgs" else 1))
    fit = learn_token(
        [example()], projections, embeddings(2).numpy(), rough, on_pass=lambda _i, _l, x: seen.append(x.numpy())
    )
    assert fit.best_epoch == int(np.argmin(fit.losses))
    assert np.array_equal(fit.embedding, seen[fit.best_epoch])
    assert len(seen) == len(fit.losses)


@pytest.mark.parametrize("name", RECIPES)
def test_equal_inputs_give_equal_tokens(example, projections, embeddings, name) -> None:
    a, b = (learn_token([example()], projections, embeddings(2).numpy(), RECIPES[name]) for _ in range(2))
    assert a.losses == b.losses and np.array_equal(a.embedding, b.embedding)


def test_several_images_of_different_sizes(example, projections, embeddings) -> None:
    images = [example(0), example(1, height=6, width=4, scale=3)]
    fit = learn_token(images, projections, embeddings(2).numpy(), RECIPES["lbfgs"], threshold=0.5)
    alone = [learn_token([e], projections, fit.embedding, replace(RECIPES["lbfgs"], epochs=1)) for e in images]
    assert fit.losses[fit.best_epoch] == pytest.approx(np.mean([a.losses[0] for a in alone]), rel=1e-5)


def test_three_rows_share_the_object(example, projections, embeddings) -> None:
    """The object's map is the mean of its rows in the fit as in the attributor's maps, at most 1/2 each."""
    x = embeddings(3).numpy()
    start = initial_embedding(x[0], x[1], tokens=3, seed=4)
    recipe = replace(RECIPES["lbfgs"], tokens=3)
    fit = learn_token([example()], projections, start, recipe, threshold=0.5)
    before = learn_token([example()], projections, start, replace(recipe, epochs=1), threshold=0.5)
    assert fit.embedding.shape == (3, 12)
    assert min(fit.losses) < 0.95 * fit.losses[0] and fit.train_iou > before.train_iou
    assert not np.allclose(fit.embedding[1], fit.embedding[2])
    maps = heat_maps(example().bundle, projections, torch.from_numpy(fit.embedding))
    query = [(TokenSet(torch.from_numpy(fit.embedding), (1, 2)),)]
    found = class_maps(example().bundle, projections, query)[0]
    torch.testing.assert_close(found, maps[1:].mean(0), rtol=0, atol=1e-6)


def test_a_channel_for_each_token(example, projections, embeddings) -> None:
    """The general case of Eq. 7: three classes of one image learned at once."""
    e = example()
    height, width = e.target.shape
    target = np.zeros((3, height, width), np.float32)
    target[1, :, : width // 3] = 1
    target[2, :, -width // 3 :] = 1
    target[0] = 1 - target[1:].sum(0)
    fit = learn_token(
        [replace(e, target=target)], projections, embeddings(3).numpy(), replace(RECIPES["lbfgs"], tokens=3)
    )
    maps = heat_maps(e.bundle, projections, torch.from_numpy(fit.embedding))
    for k in range(3):
        where = target[k, ::4, ::4].astype(bool)
        assert float(maps[k][where].mean()) > float(maps[k][~where].mean())


def test_ignored_pixels_teach_nothing(example, projections, embeddings) -> None:
    e = example()
    weight = np.ones(e.target.shape, np.float32)
    weight[:, :16] = 0
    wrong = e.target.copy()
    wrong[:, :16] = 1 - wrong[:, :16]
    start = embeddings(2).numpy()
    fits = [
        learn_token([FitExample(e.bundle, t, weight)], projections, start, RECIPES["lbfgs"], loss_at=at)
        for t in (e.target, wrong)
        for at in ("target", "map")
    ]
    for a, b in ((0, 2), (1, 3)):
        assert np.array_equal(fits[a].embedding, fits[b].embedding)
        assert fits[a].train_iou == fits[b].train_iou


def test_balance_weighs_both_sides_equally(example, projections) -> None:
    """At an embedding whose map is 0.5 + d on the object and 0.5 - d off it, both losses are known."""
    e = example()
    start = np.zeros((2, 12), np.float32)
    recipe = replace(RECIPES["sgd"], epochs=1, balance=True)
    assert learn_token([e], projections, start, recipe).losses[0] == pytest.approx(np.log(2), rel=1e-5)
    small = np.zeros_like(e.target)
    small[:4, :4] = 1
    plain, balanced = (
        learn_token([replace(e, target=small)], projections, start, replace(RECIPES["lbfgs"], balance=b), loss_at="map")
        for b in (False, True)
    )
    maps = [heat_maps(e.bundle, projections, torch.from_numpy(f.embedding))[1] for f in (plain, balanced)]
    assert float(maps[1][0, 0]) > float(maps[0][0, 0])


def test_a_ridge_keeps_the_token_near_its_start(example, projections, embeddings) -> None:
    start = embeddings(2).numpy()
    moved = [
        np.abs(learn_token([example()], projections, start, replace(RECIPES["lbfgs"], ridge=r)).embedding - start).max()
        for r in (0.0, 1e-2, 1e4)
    ]
    assert moved[0] > moved[1] > moved[2] and moved[2] < 1e-4


def test_masks_of_five_pixels_and_of_all_pixels(example, projections, embeddings) -> None:
    e = example()
    five, full = np.zeros_like(e.target), np.ones_like(e.target)
    five[10, 20:25] = 1
    for target in (five, full):
        for at in ("target", "map"):
            for balance in (False, True):
                fit = learn_token(
                    [replace(e, target=target)],
                    projections,
                    embeddings(2).numpy(),
                    replace(RECIPES["lbfgs"], balance=balance),
                    loss_at=at,
                )
                assert np.isfinite(fit.embedding).all() and np.isfinite(fit.losses).all()
                assert fit.losses[fit.best_epoch] < fit.losses[0]
                assert 0 <= fit.train_iou <= 1


def test_an_empty_mask_is_refused_alone_and_a_negative_beside_another(example, projections, embeddings) -> None:
    e = example()
    empty = replace(e, target=np.zeros_like(e.target))
    with pytest.raises(BackendError, match="draw at least a few pixels"):
        learn_token([empty], projections, embeddings(2).numpy(), RECIPES["lbfgs"])
    only_ignored = replace(e, weight=1 - e.target)
    with pytest.raises(BackendError, match="draw at least a few pixels"):
        learn_token([only_ignored], projections, embeddings(2).numpy(), RECIPES["lbfgs"])
    other = example(seed=3)
    learned = [
        learn_token(x, projections, embeddings(2).numpy(), RECIPES["lbfgs"])
        for x in ([e], [e, replace(other, target=np.zeros_like(other.target))])
    ]
    levels = [float(heat_maps(other.bundle, projections, torch.from_numpy(f.embedding))[1].mean()) for f in learned]
    assert levels[1] < levels[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.full((32, 48), 255.0)}, "outside 0..1"),
        ({"target": np.full((32, 48), np.nan)}, "outside 0..1"),
        ({"target": np.ones((3, 32, 48))}, r"\(H, W\) or \(2, H, W\)"),
        ({"weight": np.zeros((32, 48))}, "zero everywhere"),
        ({"weight": np.full((32, 48), -1.0)}, "negative"),
        ({"weight": np.ones((32, 47))}, "its target has"),
        ({"target": np.zeros((0, 0)), "weight": np.zeros((0, 0))}, "its target has"),
    ],
)
def test_bad_examples_are_named(example, projections, embeddings, change, message) -> None:
    with pytest.raises(BackendError, match=message):
        learn_token([replace(example(), **change)], projections, embeddings(2).numpy(), RECIPES["sgd"])


def test_bad_recipes_are_named(example, projections, embeddings) -> None:
    start = embeddings(2).numpy()
    with pytest.raises(BackendError, match="adam, lbfgs, sgd"):
        learn_token([example()], projections, start, replace(RECIPES["sgd"], optimizer="magic"))
    with pytest.raises(BackendError, match="epochs is 0"):
        learn_token([example()], projections, start, replace(RECIPES["sgd"], epochs=0))
    for field, value in (("learning_rate", 0.0), ("learning_rate", 1e38), ("decay", float("nan")), ("ridge", -1.0)):
        with pytest.raises(BackendError, match=f"{field} is"):
            learn_token([example()], projections, start, replace(RECIPES["sgd"], **{field: value}))
    with pytest.raises(BackendError, match="the recipe asks for \\(3"):
        learn_token([example()], projections, start, replace(RECIPES["sgd"], tokens=3))
    with pytest.raises(BackendError, match="at least one annotated image"):
        learn_token([], projections, start, RECIPES["sgd"])
    with pytest.raises(BackendError, match="not finite"):
        learn_token([example()], projections, start * np.nan, RECIPES["sgd"])


@pytest.mark.parametrize("name", RECIPES)
def test_progress_counts_up_and_may_cancel(example, projections, embeddings, name) -> None:
    class Cancelled(Exception):
        pass

    fractions: list[float] = []

    def progress(fraction: float, sentence: str) -> None:
        fractions.append(fraction)
        assert "loss" in sentence
        if len(fractions) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        learn_token([example()], projections, embeddings(2).numpy(), RECIPES[name], progress=progress)
    assert len(fractions) == 5 and fractions == sorted(fractions) and 0 < fractions[0] < fractions[-1] <= 1


def test_patience_stops_early(example, projections, embeddings) -> None:
    recipe = replace(RECIPES["sgd"], learning_rate=1e-6, epochs=200)
    fit = learn_token([example()], projections, embeddings(2).numpy(), recipe, patience=5)
    assert len(fit.losses) < 15


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_wild_step_ends_with_finite_values(example, projections, embeddings, name) -> None:
    recipe = replace(RECIPES[name], learning_rate=1e6)
    fit = learn_token([example()], projections, embeddings(2).numpy(), recipe)
    assert np.isfinite(fit.embedding).all() and np.isfinite(fit.losses[fit.best_epoch])


def test_large_masks_cost_no_more_than_the_papers_size(example, projections, embeddings) -> None:
    """A 2400-pixel mask and its 600-pixel version give the same losses: both are averaged to the loss's grid."""
    e = example(scale=1)
    fits = []
    for scale in (60, 240):
        target = np.kron(e.target, np.ones((scale, scale), np.float32))
        big = FitExample(e.bundle, target, np.ones_like(target))
        fits.append(learn_token([big], projections, embeddings(2).numpy(), replace(RECIPES["sgd"], epochs=2)))
    assert fits[0].losses == pytest.approx(fits[1].losses, rel=2e-3)


def test_initial_embedding() -> None:
    background, noun = np.zeros(4, np.float32), np.ones(4, np.float32)
    two = initial_embedding(background, noun)
    assert np.array_equal(two, [background, noun]) and two.dtype == np.float32
    four = initial_embedding(background, noun, 4, seed=1)
    assert np.array_equal(four[:2], two) and len({row.tobytes() for row in four}) == 4
    assert np.abs(four[2:] - 1).max() < 0.3
    assert np.array_equal(four, initial_embedding(background, noun, 4, seed=1))
    with pytest.raises(BackendError, match="tokens is 1"):
        initial_embedding(background, noun, 1)
