"""The measured peak is what was held, mapped files left out."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import pytest

from benchmarks.memory import AnonymousPeak

MEGABYTE = 1_000_000


@pytest.mark.parametrize("megabytes", [40, 120])
def test_a_buffer_that_is_gone_again_is_seen(megabytes: int) -> None:
    with AnonymousPeak() as peak:
        held = bytearray(megabytes * MEGABYTE)
        time.sleep(0.1)
        del held
    assert megabytes <= peak.growth_mb < megabytes + 20


def test_a_mapped_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(80 * MEGABYTE))
    with (
        AnonymousPeak() as peak,
        open(tmp_path / "file", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert sum(mapped[k] for k in range(0, len(mapped), mmap.PAGESIZE)) == 0
        time.sleep(0.1)
    assert peak.growth_mb < 20
