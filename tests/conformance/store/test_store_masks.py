"""Contract of the token store: decoded masks of corrections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from token_store_samples import correction

from token_store.contract import InvalidValueError, NotFoundError, TokenStore
from token_store.entities import CorrectionMask


def test_masks(store: TokenStore) -> None:
    first = store.add_correction(correction("1"))[0].id
    second = store.add_correction(correction("2"))[0].id
    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    ring = np.zeros_like(mask)
    ring[0] = True
    nothing = np.zeros_like(mask)
    store.put_correction_masks(
        [
            CorrectionMask(first, "dog", "negative", nothing, ring),
            CorrectionMask(first, "cat", "positive", nothing, nothing),
            CorrectionMask(second, "cat", "positive", ~mask, nothing),
        ]
    )
    store.put_correction_masks([CorrectionMask(first, "cat", "positive", mask, ring)])
    got = store.correction_masks([second, first, 99])
    assert [(m.correction_id, m.label, m.kind) for m in got] == [
        (second, "cat", "positive"),
        (first, "cat", "positive"),
        (first, "dog", "negative"),
    ]
    np.testing.assert_array_equal(got[0].mask, ~mask)
    np.testing.assert_array_equal(got[1].mask, mask)
    np.testing.assert_array_equal(got[1].ignore, ring)
    assert got[1].mask.dtype == np.bool_
    assert [m.correction_id for m in store.correction_masks([first, second], "dog")] == [first]
    assert store.correction_masks([]) == []


def test_bad_masks_are_refused_and_nothing_is_stored(store: TokenStore) -> None:
    known = store.add_correction(correction())[0].id
    mask = np.ones((4, 4), bool)
    good = CorrectionMask(known, "cat", "positive", mask, ~mask)
    with pytest.raises(NotFoundError, match="99"):
        store.put_correction_masks([good, replace(good, correction_id=99)])
    for bad in (
        replace(good, ignore=mask[:2]),
        replace(good, mask=mask.astype(np.uint8)),
        replace(good, mask=mask[0]),
        replace(good, kind="maybe"),
        replace(good, kind="negative"),
        replace(good, mask=mask[:0], ignore=mask[:0]),
    ):
        with pytest.raises(InvalidValueError):
            store.put_correction_masks([good, bad])
    assert store.correction_masks([known]) == []
