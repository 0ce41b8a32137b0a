"""The list of the protocol's rows names tests that exist, and every capture is replayed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from protocol_rows import ROWS
from test_protocol_replayed import ANSWERS, CAPTURES

TESTS = Path(__file__).parents[2]


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_a_test(row: str) -> None:
    assert ROWS[row]
    for name in ROWS[row]:
        file, _, function = name.partition("::")
        assert function.startswith("test_") and function in functions(TESTS / file), name


def test_every_capture_is_replayed() -> None:
    assert set(CAPTURES) == set(ANSWERS)
