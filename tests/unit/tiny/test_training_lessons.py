"""Drawings restyled, words taught by their neighbours, the ranking loss, the judge of generated pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from backends.diffusion.tiny.training.composer import background, compose
from backends.diffusion.tiny.training.entries import entries_of, further_words, spoken_entries, take_rows, with_words
from backends.diffusion.tiny.training.judge import TARGET, Judge, classes_of
from backends.diffusion.tiny.training.meaning import TEMPERATURE, Rows, make_lessons, novel_words
from backends.diffusion.tiny.training.objective import ranks
from backends.diffusion.tiny.training.restyle import restyle
from backends.diffusion.tiny.training.sources import RUN_VARIABLE
from backends.diffusion.tiny.training.synonyms import SYNONYMS, VALIDATION_SYNONYMS
from backends.diffusion.tiny.training.tokenizer import make_tokenizer, make_vocabulary
from backends.diffusion.tiny.training.wordnet import Nouns, kinship
from ovam_labeler.demo.sprites import load_pack

WEIGHTS = Path("backends/diffusion/tiny/weights")
DATA = """  1 a line of the licence
00000001 05 n 01 animal 0 000 | a living organism
00000002 05 n 02 feline 0 felid 0 001 @ 00000001 n 0000 | an animal of the cat family
00000003 05 n 02 cat 0 true_cat 0 001 @ 00000002 n 0000 | a small feline; "cats purr"
00000004 09 n 01 jazz 0 000 | a kind of music
00000005 05 n 02 dog 0 domestic_dog 0 001 @ 00000001 n 0000 | a barking animal
"""
INDEX = """  1 a line of the licence
animal n 1 1 ~ 1 1 00000001
cat n 2 1 @ 2 1 00000003 00000004
dog n 1 1 @ 1 1 00000005
domestic_dog n 1 1 @ 1 0 00000005
felid n 1 1 @ 1 0 00000002
feline n 1 1 @ 1 1 00000002
hog n 1 1 @ 1 0 00000001
jazz n 1 0 1 1 00000004
true_cat n 1 1 @ 1 0 00000003
"""


@pytest.fixture
def nouns(tmp_path: Path) -> Nouns:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    return Nouns(tmp_path)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), side=st.sampled_from([32, 96, 128]))
def test_a_restyled_drawing_is_another_drawing_of_the_same_thing(seed: int, side: int) -> None:
    sprite = np.zeros((side, side, 4), np.uint8)
    sprite[side // 4 : -side // 4, side // 4 : -side // 4] = (200, 90, 30, 255)
    sprite[side // 3 : side // 2, side // 3 : side // 2, :3] = (20, 160, 240)
    made = restyle(sprite, np.random.default_rng(seed))
    assert made.shape == sprite.shape and made.dtype == np.uint8
    assert not np.array_equal(made, sprite)
    assert np.array_equal(made, restyle(sprite, np.random.default_rng(seed)))
    a, b = made[..., 3] > 128, sprite[..., 3] > 128
    assert (a & b).sum() / (a | b).sum() > 0.4


def test_plain_grounds_bend_nowhere_and_other_scenes_stay_as_they_were() -> None:
    for seed in range(6):
        ground = background(np.random.default_rng(seed), (64, 64), plain=True)
        assert np.abs(np.diff(ground, axis=0)).max() < 12
    sprite = np.full((20, 20, 4), 255, np.uint8)
    first, _ = compose([sprite], np.random.default_rng(1), (64, 64))
    again, _ = compose([sprite], np.random.default_rng(1), (64, 64), plain=False)
    assert np.array_equal(first, again)


def test_kinship_falls_from_synonyms_over_kinds_to_nothing(nouns: Nouns) -> None:
    words = ["true cat", "feline", "animal", "domestic dog", "jazz"]
    found = kinship(nouns, words, ["cat", "dog"])
    assert found[0, 0] == 1.0 > found[1, 0] > found[2, 0] > 0
    assert found[3, 1] == 1.0 and (1, 1) not in found
    assert not any(w == 4 for w, _ in found)  # music is nothing that can be seen
    assert nouns.definitions("cat") == ["cat: a small feline"]


def test_words_are_taught_by_dictionary_and_embedding_but_never_by_a_keyword_that_the_evaluation_asks(
    nouns: Nouns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    tokenizer = with_words(PreTrainedTokenizerFast.from_pretrained(WEIGHTS / "tokenizer"), ["felid", "hog"])
    concepts = [
        {"label": "cat face", "names": ["cat"], "tags": ["whiskers", "kitty"]},
        {"label": "dog", "names": [], "tags": []},
        {"label": "hoofed animal", "names": ["ungulate"], "tags": []},
    ]
    library = SimpleNamespace(base=[0, 1], labels=["cat face", "dog"], concepts=concepts)
    split = {"novel_test": ["hoofed animal"], "novel_validation": [], "left_out_siblings": []}
    novel = novel_words(split, concepts)
    assert {"hoofed", "animal", "ungulate"} <= novel and "cat" not in novel

    def sentences(texts: list[str]) -> np.ndarray:
        vectors = np.stack([np.random.default_rng([crc32(t.encode())]).normal(size=384) for t in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    lessons = make_lessons(library, tokenizer, nouns, sentences, novel, dictionary=False)  # type: ignore[arg-type]
    assert lessons.names == ["cat face", "cat", "dog"]
    # parts of known names stay as they are; so do novel ones and what cannot be seen
    assert "felid" in lessons.words and not {"face", "cat", "jazz", "animal", "animals"} & set(lessons.words)
    assert np.allclose(lessons.weights.sum(1), 1)
    goal = sentences(["cat face, whiskers", "cat, whiskers", "dog"])  # without the keyword that is asked for
    plain = np.exp(sentences(["hog"]) @ goal.T / TEMPERATURE)[0]
    taught = dict(zip(lessons.words, lessons.weights, strict=True))
    assert np.allclose(taught["hog"], plain / plain.sum(), atol=0.02)
    other = np.exp(sentences(["felid"]) @ goal.T / TEMPERATURE)[0]
    assert not np.allclose(taught["felid"], other / other.sum(), atol=0.02)
    looked_up = make_lessons(library, tokenizer, nouns, sentences, novel)  # type: ignore[arg-type]
    taught = dict(zip(looked_up.words, looked_up.weights, strict=True))
    assert not np.allclose(taught["hog"], plain / plain.sum(), atol=0.02), "an animal, WordNet says"


def test_words_related_to_a_known_name_get_entries_first_and_spoken_texts_keep_their_pieces(nouns: Nouns) -> None:
    base = make_tokenizer(make_vocabulary(["jazz", "##z"], ["cat"]))
    few = further_words(base, nouns, ["cat"], [], 3, lambda w: w == "dog")
    assert few == ["feline", "felid", "animal"], "the nearer first; cat has an entry already, jazz is no thing"
    assert len(base.tokenize("felineness")) == len("felineness")
    assert further_words(base, nouns, ["cat"], ["felineness"], 3, lambda w: w == "dog") == ["felid", "animal"]


def test_further_words_leave_the_tokenizers_entries_where_they_were() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(WEIGHTS / "tokenizer")
    wider = with_words(tokenizer, ["zyzzyvine", "cat"])
    assert wider.get_vocab() == {**tokenizer.get_vocab(), "zyzzyvine": len(tokenizer)}
    for text in ("a photograph of a red apple", "Zebra-crossing 07", "d\u00e9j\u00e0 vu"):
        assert wider(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert len(tokenizer("zyzzyvine")["input_ids"]) > 3 == len(wider("zyzzyvine")["input_ids"])


def test_entries_that_captions_used_stay_with_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_tokenizer(make_vocabulary(["##s"], ["cat"]))
    monkeypatch.setattr("backends.diffusion.tiny.training.entries.BASE", len(first))
    before = with_words(first, ["kayak", "oar"])
    kept = spoken_entries(before, ["a red oar"])
    assert entries_of(kept) == [*entries_of(first), "oar"]
    after = with_words(kept, ["canoe"])
    config = CLIPTextConfig(
        vocab_size=len(before), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    encoder = CLIPTextModel(config)
    rows = encoder.get_input_embeddings().weight.detach().clone()
    take_rows(encoder, before, after)
    taken = encoder.get_input_embeddings().weight
    assert len(taken) == len(after) == encoder.config.vocab_size
    assert torch.equal(taken[after.get_vocab()["oar"]], rows[before.get_vocab()["oar"]])
    assert torch.equal(taken[: len(first)], rows[: len(first)])


def test_the_synonyms_are_names_of_held_out_concepts() -> None:
    split = json.loads((WEIGHTS / "split.json").read_text())
    assert set(SYNONYMS) <= set(split["known_test"]) and set(VALIDATION_SYNONYMS) <= set(split["known_validation"])


def test_only_the_rows_that_are_taught_move() -> None:
    table = torch.randn(6, 3)
    rows = Rows(table, torch.tensor([4, 1]))
    assert torch.equal(rows(torch.tensor([[0, 1, 4]])), table[[0, 1, 4]][None])
    optimizer = torch.optim.SparseAdam(list(rows.parameters()), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        rows(torch.tensor([[0, 1, 2], [0, 1, 5]])).square().sum().backward()
        optimizer.step()
    moved = (rows.whole() != table).any(1)
    assert moved.tolist() == [False, True, False, False, False, False]


def test_the_own_map_shall_be_the_highest() -> None:
    targets = torch.zeros(1, 2, 4, 4)
    targets[0, 0, :2], targets[0, 1, 2:] = 1, 1
    right, wrong = targets * 0.9 + 0.05, targets.flip(1) * 0.9 + 0.05
    fair = torch.ones(1, 2)
    assert all(
        float(good) < 0.1 < float(bad)
        for good, bad in zip(ranks(right, targets, fair), ranks(wrong, targets, fair), strict=True)
    )
    # a map that may not be judged neither loses nor wins
    alone = torch.tensor([[1.0, 0.0]])
    assert all(float(value) < 0.1 for value in ranks(right, targets, alone))


def test_the_shipped_judge_knows_held_out_drawings() -> None:
    judge = Judge(TARGET)
    split = json.loads((WEIGHTS / "split.json").read_text())
    assert judge.labels == classes_of(split)
    pack = [c for c in load_pack("test") if c.name in judge.labels]
    images = []
    for k, concept in enumerate(pack):
        images.append(compose([concept.sprites[0].pixels], np.random.default_rng(k), (128, 128), scales=[0.8])[0])
    named = judge(np.stack(images))
    right = np.mean([name == concept.name for name, concept in zip(named, pack, strict=True)])
    assert right > 0.3  # of 80 classes; the model card has the figure
