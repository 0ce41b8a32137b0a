"""The embedded model's tokenizer: whole lower-case words first, then pieces, then single bytes. Nothing is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 32  # tokens of a prompt, start and end included


def make_vocabulary(ranked: Sequence[str], names: Iterable[str], words: int = 13000, pieces: int = 1000) -> list[str]:
    """Start, end, every byte alone and as a continuation, every word of ``names``, then the first ``words``
    alphabetic entries and ``pieces`` continuations of ``ranked`` (another model's vocabulary by frequency)."""
    byte_letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [START, END, *byte_letters, *("##" + letter for letter in byte_letters)]
    entries += [entry for entry in ranked if re.fullmatch("##[a-z]{2,}", entry)][:pieces]
    entries += [part for name in names for part in re.findall("[a-z]+", name.lower())]
    entries += [entry for entry in ranked if re.fullmatch("[a-z]{2,}", entry)][:words]
    return list(dict.fromkeys(entries))


def make_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """WordPiece over bytes, start token in front, end token behind and as padding."""
    ids = {entry: i for i, entry in enumerate(vocabulary)}
    core = Tokenizer(models.WordPiece(ids, unk_token=END, max_input_chars_per_word=100_000))
    core.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    core.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=LENGTH,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
    )


def pieces_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text without start and end."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]
