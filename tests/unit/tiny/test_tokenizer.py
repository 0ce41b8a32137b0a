"""The tokenizer: whole words, pieces, single bytes, and its survival of save and load."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.diffusion.tiny.training.tokenizer import END, LENGTH, START, make_tokenizer, make_vocabulary, pieces_of

RANKED = ["[UNK]", "the", "cat", "a", "##s", "##ing", "##ed", "walk", "5", "photograph", "of", "##ect"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(make_vocabulary(RANKED, ["red panda", "Piñata"], words=10, pieces=10))


def spoken(tokenizer, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(pieces_of(tokenizer, text))


def test_known_words_are_one_token_each(tokenizer) -> None:
    assert spoken(tokenizer, "A photograph of the Red Panda") == ["a", "photograph", "of", "the", "red", "panda"]


def test_suffixes_and_letters_spell_the_rest(tokenizer) -> None:
    assert spoken(tokenizer, "walking cats") == ["walk", "##ing", "cat", "##s"]
    assert spoken(tokenizer, "zq") == ["z", "##q"]


@pytest.mark.parametrize("text", ["defect_07", "Crème brûlée", "猫", "🐱 cat", "a\tb", "x" * 300, "label: [a/b]", "ß"])
def test_nothing_is_unknown(tokenizer, text: str) -> None:
    ids = pieces_of(tokenizer, text)
    assert ids and tokenizer.unk_token_id not in ids


def test_accents_do_not_matter(tokenizer) -> None:
    assert pieces_of(tokenizer, "Cát") == pieces_of(tokenizer, "cat")


def test_different_scripts_stay_different(tokenizer) -> None:
    assert pieces_of(tokenizer, "猫") != pieces_of(tokenizer, "犬")


def test_prompts_are_framed_and_padded_as_a_pipeline_asks(tokenizer) -> None:
    out = tokenizer(["cat", ""], padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    first, empty = (tokenizer.convert_ids_to_tokens(row) for row in out["input_ids"])
    assert first[:3] == [START, "cat", END] and len(first) == LENGTH == tokenizer.model_max_length
    assert empty == [START] + [END] * (LENGTH - 1)


def test_a_long_prompt_is_cut_to_length_and_keeps_its_end(tokenizer) -> None:
    ids = tokenizer("cat " * 50, truncation=True, max_length=LENGTH)["input_ids"]
    assert len(ids) == LENGTH and ids[-1] == tokenizer.eos_token_id


def test_save_and_load(tokenizer, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in ("A photograph of a cat", "defect_07", "猫", ""):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (again.pad_token, again.bos_token, again.model_max_length) == (END, START, LENGTH)
