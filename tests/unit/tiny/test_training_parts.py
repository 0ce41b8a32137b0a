"""Pieces of the training that need no run: batches, the pool, the archive of sprites, the loss of peaks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backends.diffusion.tiny.training.batches import Batch, Pool
from backends.diffusion.tiny.training.pool import NOTHING, WORDLESS, alone_pair, disguised, fractions
from backends.diffusion.tiny.training.sources import RUN_VARIABLE

CELLS = 4


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    (tmp_path / "pool").mkdir()
    return tmp_path


def write_part(run: Path, name: str, concept: int, pairs: int = 3) -> None:
    count = 2 * pairs
    np.save(run / "pool" / f"z.{name}.npy", np.full((count, 16, CELLS, CELLS), concept, np.float16))
    np.save(run / "pool" / f"m.{name}.npy", np.full((count, 4, CELLS, CELLS), 255, np.uint8))
    concepts = np.full((count, 4), NOTHING, np.int16)
    concepts[:, 0] = concept
    np.save(run / "pool" / f"c.{name}.npy", concepts)


def test_targets_add_up_the_masks_of_each_word() -> None:
    masks = torch.rand(2, 4, CELLS, CELLS)
    concepts = np.array([[5, 7, 5, NOTHING], [disguised(7), 7, WORDLESS, NOTHING]], np.int16)
    batch = Batch(torch.zeros(2, 16, CELLS, CELLS), masks, concepts, torch.tensor([False, True]))
    targets = batch.targets([7, 5])
    assert torch.equal(targets[0, 1], masks[0, 0] + masks[0, 2]) and torch.equal(targets[0, 0], masks[0, 1])
    assert torch.equal(targets[1, 0], masks[1, 1]) and not targets[1, 1].any()
    assert torch.allclose(batch.foreground[0, 0], masks[0, :3].sum(0).clamp(max=1))


@pytest.mark.parametrize("concept", [0, 1, 700])
def test_a_disguised_concept_is_neither_a_word_nor_nothing(concept: int) -> None:
    assert disguised(concept) < WORDLESS and disguised(disguised(concept)) == concept


def test_fractions_are_the_share_of_each_cell() -> None:
    mask = np.zeros((1, 16, 24), np.float32)
    mask[0, :8, :4] = 1
    found = fractions(mask)
    assert found.shape == (1, 2, 3) and found[0, 0, 0] == 128 and found.sum() == 128


def test_the_pool_takes_up_parts_that_appear_later(run: Path) -> None:
    write_part(run, "plain160-0", 1)
    write_part(run, "new160-0", disguised(2))
    pool = Pool(np.random.default_rng(0), wordless_share=0.5)
    assert pool.has(160) and not pool.has(224)
    seen = {int(c) for _ in range(3) for c in pool.draw(2, 160).concepts[:, 0]}
    assert seen == {1, disguised(2)}
    write_part(run, "plain160-1", 9)
    assert 9 in {int(c) for _ in range(9) for c in pool.draw(2, 160).concepts[:, 0]}


def test_of_two_processes_each_draws_pairs_of_its_own(run: Path) -> None:
    write_part(run, "plain160-0", 0, pairs=5)
    concepts = np.load(run / "pool" / "c.plain160-0.npy")
    concepts[:, 0] = np.arange(10) // 2
    np.save(run / "pool" / "c.plain160-0.npy", concepts)
    first, second = (Pool(np.random.default_rng(k), 0.0, rank=k, world=2) for k in (0, 1))
    assert {int(c) for c in first.draw(3, 160).concepts[:, 0]} == {0, 2, 4}
    assert {int(c) for c in second.draw(2, 160).concepts[:, 0]} == {1, 3}


def test_a_missing_size_is_named(run: Path) -> None:
    with pytest.raises(FileNotFoundError, match="plain224"):
        Pool(np.random.default_rng(0), 0.0).draw(1, 224)


def test_peaks_want_a_high_top_where_present_and_a_low_one_where_absent() -> None:
    from backends.diffusion.tiny.training.objective import peaks

    quiet, loud = torch.full((1, 1, 10, 10), 0.02), torch.full((1, 1, 10, 10), 0.02)
    loud[..., 0, :2] = 0.98
    yes, no, trust = torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1, 1)
    assert peaks(loud, yes, trust) < 0.1 < peaks(loud, no, trust)
    assert peaks(quiet, no, trust) < 0.1 < peaks(quiet, yes, trust)
    assert float(peaks(loud, no, torch.zeros(1, 1))) == 0.0


def test_the_archive_of_sprites_comes_back_without_test_only_styles(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    from backends.diffusion.tiny.training import ship
    from backends.diffusion.tiny.training.data import SPRITE_SIZE
    from backends.diffusion.tiny.training.sources import ALL_STYLES

    hidden = next(i for i, style in enumerate(ALL_STYLES) if style.test_only)
    sprite = np.zeros((SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    sprite[30:90, 30:90] = (200, 40, 40, 255)
    for sprites, table in ship.PARTS:
        np.save(run / f"{sprites}.npy", np.stack([sprite, sprite]))
        np.save(run / f"{table}.npy", np.array([[0, 0], [0, hidden]], np.int32))
    for name in ("meta.json", "split.json", "extra.json"):
        (run / name).write_text(json.dumps({}))
    ship.pack(run / "ship.zip")
    other = run / "other"
    monkeypatch.setenv(RUN_VARIABLE, str(other))
    ship.unpack(run / "ship.zip")
    found = np.load(other / "sprites.npy")
    assert np.abs(found[0, 40:80, 40:80].astype(int) - sprite[40:80, 40:80]).mean() < 8 and not found[1].any()


def test_pictures_to_paint_from_show_known_objects_whole_on_flat_ground() -> None:
    sprites = np.zeros((3, 128, 128, 4), np.uint8)
    for row, colour in enumerate(((250, 0, 0), (0, 250, 0), (0, 0, 250))):
        sprites[row, 20:108, 20:108] = (*colour, 255)
    library = SimpleNamespace(pixels=sprites, known=[0, 1], plainest={0: 0, 1: 1}, conflicts=[set(), set(), set()])
    counts = set()
    for seed in range(20):
        for scene in alone_pair(library, np.random.default_rng(seed), 2, 128):  # 2 has no drawing that stands for it
            assert set(scene.concepts) <= {0, 1} and len(scene.concepts) == len(scene.masks)
            ground = scene.image[scene.masks.sum(0) == 0]
            assert len(np.unique(ground, axis=0)) == 1
            for mask, concept in zip(scene.masks, scene.concepts, strict=True):
                assert mask.sum() > 400 and (scene.image[mask > 0.99].mean(0).argmax() == concept)
            assert float(scene.masks.sum(0).max()) <= 1.01
            counts.add(len(scene.concepts))
    assert counts == {1, 2}
