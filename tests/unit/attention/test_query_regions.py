"""Likeness of regions by their mean queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends.attention.presets import PRESETS
from backends.attention.queries import LayerQueries, QueryBundle
from backends.attention.regions import region_vectors
from backends.contract import BackendError


def halves(rows: int = 8, columns: int = 12) -> np.ndarray:
    """Left half, right half, upper left quarter, everything, nothing."""
    found = np.zeros((5, rows, columns), dtype=bool)
    found[0, :, : columns // 2] = found[1, :, columns // 2 :] = found[3] = True
    found[2, : rows // 2, : columns // 2] = True
    return found


def test_the_definition_for_one_layer_and_any_number_of_steps(make_bundle) -> None:
    layer = make_bundle(steps=3).layers[0]
    vectors = region_vectors(QueryBundle((layer,)), halves())
    queries, inside = layer.queries.mean(0), torch.from_numpy(halves()[2].ravel())  # (heads, pixels, d_head)
    expected = (queries[:, inside].mean(1) - queries[:, ~inside].mean(1)).flatten()
    assert np.allclose(vectors[2], (expected / expected.norm()).numpy(), atol=1e-5)


def test_likeness_is_the_mean_of_the_layers(make_bundle) -> None:
    bundle = make_bundle()
    alike = [v @ v.T for v in (region_vectors(QueryBundle((layer,)), halves()) for layer in bundle.layers)]
    vectors = region_vectors(bundle, halves())
    assert np.allclose(vectors @ vectors.T, np.mean(alike, axis=0), atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0, 0], atol=1e-5)
    assert np.allclose(vectors[0], -vectors[1], atol=1e-5), (
        "a half differs from the rest as the rest does from it, turned"
    )


def test_regions_of_any_size_and_scale_of_queries_do_not_matter(make_bundle) -> None:
    bundle = make_bundle()
    louder = QueryBundle(
        tuple(LayerQueries(y.name, y.heads, y.height, y.width, y.scale, 7 * y.queries) for y in bundle.layers)
    )
    large = halves().repeat(5, axis=1).repeat(5, axis=2)
    for found in (region_vectors(louder, halves()), region_vectors(bundle, large)):
        assert np.allclose(found, region_vectors(bundle, halves()), atol=1e-5)


def test_what_is_stored_says_the_same(make_bundle) -> None:
    bundle = make_bundle()
    stored = bundle.stored(PRESETS["exact"])
    assert np.allclose(region_vectors(stored, halves()), region_vectors(bundle, halves()), atol=2e-3)


def test_errors_name_what_is_wrong(make_bundle) -> None:
    with pytest.raises(BackendError, match=r"\(8, 12\)"):
        region_vectors(make_bundle(), np.zeros((8, 12)))
    with pytest.raises(BackendError, match=r"outside 0\.\.1"):
        region_vectors(make_bundle(), np.full((1, 8, 12), np.nan))
