"""Which words are whole in the tokenizer: chosen anew by every run of the stage ``meaning``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .tokenizer import make_tokenizer
from .wordnet import Nouns, kinship

ENTRIES = 23_881  # of the tokenizer: 25 MB have room for them
BASE = 15_381  # the first of them, which the tokenizer began with; those behind are chosen here


def entries_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Its entries by number."""
    table = tokenizer.get_vocab()
    return sorted(table, key=table.__getitem__)


def with_words(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tokenizer with further whole words behind its entries, whose numbers stay."""
    table = tokenizer.get_vocab()
    return make_tokenizer([*entries_of(tokenizer), *(w for w in words if w not in table)])


def spoken_entries(tokenizer: PreTrainedTokenizerFast, spoken: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tokenizer without those further words that no spoken text is made of: the others have been in captions since."""
    used = {piece for text in spoken for piece in tokenizer.tokenize(text)}
    return make_tokenizer([e for k, e in enumerate(entries_of(tokenizer)) if k < BASE or e in used])


def take_rows(encoder: CLIPTextModel, before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast) -> None:
    """Give the encoder the token table of another tokenizer; entries that both have keep their rows."""
    rows, table = before.get_vocab(), encoder.get_input_embeddings().weight.detach().clone()
    encoder.resize_token_embeddings(len(after), mean_resizing=False)
    with torch.no_grad():
        for entry, place in after.get_vocab().items():
            if entry in rows:
                encoder.get_input_embeddings().weight[place] = table[rows[entry]]


def further_words(
    base: PreTrainedTokenizerFast,
    nouns: Nouns,
    names: Sequence[str],
    spoken: Sequence[str],
    most: int,
    without: Callable[[str], bool],
) -> list[str]:
    """The ``most`` words for things that can be seen that are worth an entry of their own, by kinship to a name, then by mentions.

    Args:
        names: of known concepts.
        spoken: texts that have to keep their pieces: a word that is also the beginning of a longer one would take a piece's place.
    """
    table = base.get_vocab()
    able = nouns.common(len(nouns.plain), lambda w: w in table or without(w))
    kin: dict[int, float] = {}
    for (w, _), value in kinship(nouns, able, list(names)).items():
        kin[w] = max(kin.get(w, 0.0), value)
    ranked = [able[w] for w in sorted(range(len(able)), key=lambda w: -kin.get(w, 0.0))][:most]
    longer = with_words(base, ranked)
    taken = {piece for text in spoken for piece in longer.tokenize(text)} & set(ranked)
    return [w for w in ranked if w not in taken]
