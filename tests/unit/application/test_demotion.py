"""A class's first token and the corrections that come after it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from ovam_labeler.demotion import spoken_against
from token_store.entities import Scope, TokenVersion


class Readings:
    """IoU by correction."""

    def __init__(self, token: dict[int, float], word: dict[int, float]) -> None:
        self.token, self.word = token, word

    def token_iou(self, lesson, embedding) -> float:
        assert embedding.shape == (2, 3)
        return self.token[lesson.correction_id]

    def word_iou(self, lesson) -> float:
        return self.word[lesson.correction_id]


def version(**changes: object) -> TokenVersion:
    first = TokenVersion(
        id=1,
        scope=Scope("default", "1"),
        class_name="lemon",
        number=1,
        fingerprint={"space": "s"},
        embedding=np.zeros((2, 3), np.float32),
        recipe={},
        metrics={},
        source_corrections=(1,),
        parent_version=None,
        created_by="ann",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        state="unproven",
        aliases=(),
        sha256="",
    )
    return replace(first, **changes)


def lessons(*ids: int, positive: bool = True) -> list[SimpleNamespace]:
    return [SimpleNamespace(correction_id=i, positive=positive) for i in ids]


WORSE = Readings({2: 0.1, 3: 0.3}, {1: 0.0, 2: 0.4, 3: 0.2})


def test_worse_than_the_word_on_the_next_two() -> None:
    found = spoken_against(version(), "s", WORSE, lessons(3, 1, 2))
    assert found == "On corrections 2, 3 its masks come to a mean IoU of 0.20, those of the word to 0.30."


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({}, lessons(1, 2)),  # one other is too few
        ({}, [*lessons(1, 2), *lessons(3, positive=False)]),  # a picture without the class is no mask to compare with
        ({"state": "proven"}, lessons(2, 3)),
        ({"state": "rejected"}, lessons(2, 3)),
        ({"source_corrections": (1, 4)}, lessons(2, 3)),
        ({"source_corrections": ()}, lessons(2, 3)),  # imported: from nobody's correction here
        ({"fingerprint": {"space": "another"}}, lessons(2, 3)),
    ],
)
def test_nothing_is_said_without_evidence(changes, given) -> None:
    assert spoken_against(version(**changes), "s", WORSE, given) == ""


def test_as_good_as_the_word_is_kept() -> None:
    assert spoken_against(version(), "s", Readings({2: 0.4, 3: 0.2}, {2: 0.4, 3: 0.2}), lessons(2, 3)) == ""
