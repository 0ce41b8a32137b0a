"""A token of another embedding space is refused with what differs; other reading settings are told."""

from __future__ import annotations

import pytest

from backends.contract import Fingerprint
from ovam_labeler.embedding_space import differences, refusal

HERE = Fingerprint(
    "aa",
    "sd-1.5",
    {"timesteps": (50,), "side": 224},
    {"text encoder": "1", "tokenizer": "2", "key projections": "3"},
)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"text encoder": "9"}, "its text encoder is not this base model's"),
        ({"key projections": "9"}, "its key projections are not this base model's"),
        ({"text encoder": "9", "tokenizer": "9"}, "its text encoder and tokenizer are not"),
    ],
)
def test_a_refusal_says_which_part_differs(changed: dict[str, str], named: str) -> None:
    stored = {"space": "bb", "model": "sd-2.1", "parts": {**HERE.parts, **changed}}
    found = refusal(stored, HERE)
    assert found is not None and named in found and "learned in sd-2.1, this is sd-1.5" in found


def test_a_token_from_before_parts_were_kept_is_refused_too() -> None:
    assert "another embedding space (bb, base model x)" in str(refusal({"space": "bb", "model": "x"}, HERE))
    assert refusal({"space": "aa"}, HERE) is None


def test_other_reading_settings_are_named_and_json_s_lists_are_tuples() -> None:
    stored = {"space": "aa", "settings": {"timesteps": [50], "side": 128, "method": "ovam"}}
    assert differences(stored, HERE) == ["side 128 there, 224 here"]
