"""Which of several corrections the others contradict, over figures."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ovam_labeler.contradiction import CONTRADICTION, KEPT_WORTH, Agreement, contradicting, doubt


def groups(*sizes: int, kept: float = -0.4, alike: float = 0.1, elsewhere: float = 0.6) -> Agreement:
    """Corrections that fall into groups which mark different objects of the same pictures, told by what is across groups.

    Within a group tokens keep .6 of their margin, marks are .6 alike, and what is found outside of them is .1 alike.
    """
    of = np.repeat(np.arange(len(sizes)), sizes)
    same = of[:, None] == of[None, :]
    tables = np.where(same, 0.6, kept), np.where(same, 0.6, alike)
    outside = np.where(same[:, :, None], 0.1, elsewhere) * np.where(same[None], 1.0, 0.2)
    for table in tables:
        np.fill_diagonal(table, np.nan)  # never read
    return Agreement(*tables, outside)


def test_two_corrections_cannot_outvote_each_other() -> None:
    assert contradicting(groups(1, 1)) == []
    assert contradicting(groups(1)) == []


def test_a_mask_is_set_aside_where_the_object_that_the_others_marked_is_elsewhere_in_its_picture() -> None:
    assert contradicting(groups(1, 2)) == [0]
    assert contradicting(groups(3, 1)) == [3]
    assert sorted(contradicting(groups(1, 5, 1))) == [0, 6]
    assert contradicting(groups(4)) == []


def test_an_unlike_design_is_no_evidence_against_a_mask() -> None:
    """The others' tokens do not find it, and it looks like nothing of theirs; but neither does anything else in its picture."""
    unlike = groups(2, 1, kept=-0.2, alike=0.0, elsewhere=0.05)
    assert contradicting(unlike) == []
    assert contradicting(groups(2, 1, kept=-0.2, alike=0.0, elsewhere=0.5)) == [2], (
        "the same mask, their object beside it"
    )


def test_the_burden_of_proof_is_on_the_first_of_three_and_on_a_new_one_after_three() -> None:
    """What speaks too faintly against the second or the third is enough against the first, and against the fourth."""
    faint = {"kept": -0.1, "alike": 0.2, "elsewhere": 0.2}
    assert contradicting(groups(1, 2, **faint)) == [0]
    assert contradicting(groups(2, 1, **faint)) == []
    assert contradicting(groups(1, 2, **faint).of([1, 0, 2])) == []
    assert contradicting(groups(3, 1, **faint)) == [3]
    assert contradicting(groups(4, **faint)) == [] and contradicting(groups(1, 2, kept=0.5, alike=0.5)) == [], (
        "nor less"
    )


def test_what_was_set_aside_stays_aside_until_the_others_speak_for_it() -> None:
    less = groups(1, 4).of([1, 0, 2, 3, 4])
    less.elsewhere[1, 3:, :] = less.elsewhere[1, :, 3:] = -0.1  # the last two say little
    assert 0 < doubt(less, 1, [0, 2, 3, 4]) < CONTRADICTION, "too little against one that stands"
    assert contradicting(less.of(range(3))) == [1] and contradicting(less) == [1]
    after = groups(1, 6)
    after.elsewhere[0, 4:, :] = after.elsewhere[0, :, 4:] = -0.4
    after.kept[0, 4:] = after.alike[0, 4:] = 0.6
    assert doubt(after, 0, range(1, 7)) < 0 and contradicting(after.of(range(4))) == [0] and contradicting(after) == []


def test_tokens_that_find_the_mask_speak_for_it() -> None:
    assert contradicting(groups(1, 2, kept=0.0, alike=0.3, elsewhere=0.45)) == [0]
    assert contradicting(groups(1, 2, kept=0.8, alike=0.3, elsewhere=0.45)) == []


def test_only_the_others_are_asked() -> None:
    """What a mask's own token finds outside of it, and how alike that is to the mask itself, is no evidence."""
    found = groups(1, 2)
    found.elsewhere[0, 0] = found.elsewhere[0, :, 0] = np.nan
    assert np.isclose(doubt(found, 0, [1, 2]), 0.6 - 0.1 + KEPT_WORTH * 0.4)


def test_without_likenesses_tokens_have_to_point_elsewhere_clearly() -> None:
    nothing = np.zeros((3, 3)), np.zeros((3, 3, 3))
    assert contradicting(Agreement(groups(2, 1, kept=-0.9).kept, *nothing)) == [2]
    assert contradicting(Agreement(groups(2, 1, kept=-0.3).kept, *nothing)) == []


def test_where_no_side_is_the_majority_those_that_came_first_stand() -> None:
    assert set(contradicting(groups(2, 2))) <= {2, 3}


def test_two_designs_are_two_and_two_wrong_masks_are_outvoted() -> None:
    assert contradicting(groups(2, 3, kept=-0.2, alike=0.1, elsewhere=0.1)) == []
    assert sorted(contradicting(groups(2, 3))) == [0, 1], (
        "the object that the three marked is in both of their pictures"
    )


@given(st.integers(1, 7), st.integers(0, 10**6))
def test_the_majority_always_stays(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = Agreement(*(rng.uniform(-1, 1, (n,) * axes) for axes in (2, 2, 3)))
    aside = contradicting(found)
    assert 2 * (n - len(aside)) > n and len(set(aside)) == len(aside)


def test_a_part_of_the_corrections() -> None:
    part = groups(1, 3).of([3, 0, 1])
    assert len(part) == 3 and contradicting(part) == [1]
