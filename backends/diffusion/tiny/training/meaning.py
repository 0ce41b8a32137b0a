"""Stage ``meaning``: words that no caption used take the place of the known names nearest to them.

While the UNet trains, the text layers follow the few names of captions, and all other words land anywhere; rarer ones are
several pieces that mean nothing. Here the tokenizer gets more whole words for things that can be seen (those that WordNet relates
to a known name, the nearest first, then those that its definitions mention most), and nothing moves but the token table's rows
of such words, old and new, that are part of no known name: a word's state shall be the mean of the model's own states of known names, weighted by nearness (sentence embeddings of the
word and of its WordNet definitions against a name and its keywords; WordNet's synonyms and broader terms). Known names,
sentences about them, and every token learned for them stay as they are, to the bit.

Names of novel concepts, and of what looks like them, are not touched: for the model they stay words without a lesson. Words that
the evaluation asks as unseen synonyms are looked up in the dictionary like any other; the keywords that come with the drawings
are not told of them (``--without-dictionary`` shows what sentence embeddings alone give them).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .clipart import HELD_OUT_WORDS, singular
from .entries import ENTRIES, further_words, spoken_entries, take_rows, with_words
from .export import CHECKPOINTS, newest_checkpoint, trained_models
from .grounding import Grounding
from .library import Library
from .sentences import SentenceModel
from .sources import run_folder
from .synonyms import asked
from .text import ADJECTIVES, TEMPLATES, hidden_states, pad, pieces_of, prompt_ids
from .vocabulary import ANYTHING, known_names
from .wordnet import Nouns, fetch, kinship

RATE, BATCH = 0.02, 256
TABLE = "text.embeddings.token_embedding.weight"
#: Chosen on validation concepts (model card).
TEMPERATURE, KIN = 0.02, 0.8


@dataclass(frozen=True)
class Lessons:
    """Known names; words with weights over the names (w, n)."""

    names: list[str]
    words: list[str]
    weights: np.ndarray


def novel_words(split: dict[str, Any], concepts: list[dict[str, Any]]) -> set[str]:
    """Words in names of novel concepts and of what looks like them."""
    out = {*split["novel_test"], *split["novel_validation"], *split["left_out_siblings"]}
    names = [n.lower() for c in concepts if c["label"] in out for n in [c["label"], *c["names"]]]
    return {w for name in names for w in re.findall("[a-z]+", name)} | set(HELD_OUT_WORDS)


def spoken_words(library: Library) -> set[str]:
    """Words in known names and in the prompts of training: they stay as they are, whole or in pieces."""
    texts = (*known_names(library), *ANYTHING, *TEMPLATES, *ADJECTIVES)
    return {w for text in texts for w in re.findall("[a-z]+", text.lower())}


def make_lessons(
    library: Library,
    tokenizer: PreTrainedTokenizerFast,
    nouns: Nouns,
    sentences: Callable[[list[str]], np.ndarray],
    novel: set[str],
    temperature: float = TEMPERATURE,
    kin: float = KIN,
    dictionary: bool = True,
) -> Lessons:
    """Every whole word of the vocabulary that names a thing that can be seen, part of no known name nor of a novel one's.

    Args:
        dictionary: WordNet also tells of words that the evaluation asks as unseen synonyms.
    """
    asked_for = asked()
    tagged = {
        n: ", ".join([n, *[t for t in tags if t not in asked_for][:6]]) for n, tags in known_names(library).items()
    }
    names = list(tagged)
    # what known names are made of, whole words and first pieces
    taken = spoken_words(library)
    taken |= {piece for word in taken for piece in tokenizer.tokenize(word)}
    visible = [w for w in sorted(tokenizer.get_vocab()) if re.fullmatch("[a-z]{3,}", w) and w not in taken]
    words = [w for w in visible if nouns.is_concrete(w) or nouns.is_concrete(singular(w))]
    words = [w for w in words if w not in novel and singular(w) not in novel]
    open_words = [w for w in words if dictionary or (w not in asked_for and singular(w) not in asked_for)]
    near = nearness(words, names, list(tagged.values()), nouns, sentences, set(open_words))
    place = {w: i for i, w in enumerate(words)}
    for (w, k), value in kinship(nouns, open_words, names).items():
        near[place[open_words[w]], k] += kin * value
    weights = np.exp((near - near.max(1, keepdims=True)) / temperature)
    weights[weights < 1e-3] = 0
    return Lessons(names, words, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def nearness(
    words: list[str],
    names: list[str],
    tagged: list[str],
    nouns: Nouns,
    sentences: Callable[[list[str]], np.ndarray],
    defined: set[str],
) -> np.ndarray:
    """(w, n) cosine of a word with a name and its keywords; of words in ``defined`` the mean of this and the same cosine of
    their nearest definition. Kept in the run folder."""
    meanings = [(w, text) for w, word in enumerate(words) if word in defined for text in nouns.definitions(word)]
    cache = run_folder() / "meaning.npz"
    texts = [*tagged, *words, *(text for _, text in meanings)]
    stored = np.load(cache, allow_pickle=False) if cache.exists() else {"texts": []}
    if list(stored["texts"]) != texts:
        np.savez(cache, texts=np.array(texts), vectors=sentences(texts).astype(np.float16))
        stored = np.load(cache, allow_pickle=False)
    goal, own, meant = np.split(stored["vectors"].astype(np.float32), [len(names), len(names) + len(words)])
    near = own @ goal.T
    best = np.full_like(near, -1)
    np.maximum.at(best, np.array([w for w, _ in meanings], int), meant @ goal.T)
    has = best.max(1) > -1
    near[has] = (near[has] + best[has]) / 2
    return np.asarray(near)


class Teacher:
    """The trained model's own text encoder and key projections, both fixed."""

    def __init__(
        self, state: dict[str, Any], before: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """Args: before, the tokenizer of the trained state; tokenizer, the one that is spoken with here."""
        unet, self.encoder = trained_models(state)
        take_rows(self.encoder, before, tokenizer)
        self.keys = [layer.to_k.weight.detach() for layer in Grounding(unet).layers]
        self.tokenizer = tokenizer

    @torch.no_grad()
    def states(self, names: list[str]) -> Tensor:
        """(n, E): mean state of each name's pieces, alone."""
        made = [prompt_ids(self.tokenizer, pieces_of(self.tokenizer, n)[:8], "{}") for n in names]
        hidden = hidden_states(self.encoder, pad([m[0] for m in made], self.tokenizer.eos_token_id))
        return torch.stack([h[first:last].mean(0) for h, (_, first, last) in zip(hidden, made, strict=True)])

    def distance(self, states: Tensor, wanted: Tensor, scale: list[float]) -> Tensor:
        """Squared difference as the attention sees it (its keys), and a little of the state itself; (...,)."""
        away = states - wanted
        parts = [F.linear(away, k).square().mean(-1) / s for k, s in zip(self.keys, scale, strict=False)]
        return torch.stack(parts).mean(0) + 0.3 * away.square().mean(-1) / scale[-1]

    def scale(self, states: Tensor) -> list[float]:
        """Variance over names of each layer's keys, and of the states."""
        centred = states - states.mean(0)
        return [float(F.linear(centred, k).square().mean()) for k in self.keys] + [float(centred.square().mean())]


class Rows(nn.Module):
    """A token table of which some rows are learned: only these have gradients, only those of a batch cost time."""

    def __init__(self, table: Tensor, rows: Tensor) -> None:
        super().__init__()
        self.table, self.rows = table.detach().clone(), rows
        self.slot = torch.full((len(table),), len(rows))
        self.slot[rows] = torch.arange(len(rows))
        # one more row, never looked at, for all other tokens
        self.learned = nn.Embedding.from_pretrained(
            torch.cat([self.table[rows], torch.zeros(1, table.shape[1])]), freeze=False, sparse=True
        )

    def forward(self, ids: Tensor) -> Tensor:
        place = self.slot[ids]
        own = (place < len(self.rows))[..., None]
        return torch.where(own, self.learned(place), self.table[ids])

    def whole(self) -> Tensor:
        """The table with what was learned."""
        result = self.table.clone()
        result[self.rows] = self.learned.weight[:-1].detach()
        return result


def teach(teacher: Teacher, encoder: CLIPTextModel, lessons: Lessons, steps: int, seed: int = 0) -> Tensor:
    """The token table with the words' rows trained; ``encoder`` is used up."""
    rng, tokenizer, end = np.random.default_rng(seed), teacher.tokenizer, teacher.tokenizer.eos_token_id
    states = teacher.states(lessons.names)
    weights = torch.from_numpy(lessons.weights)
    goal, scale = weights @ states, teacher.scale(states)
    table = tokenizer.get_vocab()
    ids = torch.tensor([table[w] for w in lessons.words])
    encoder.requires_grad_(False)
    encoder.set_attn_implementation("eager")  # the fused kernel is slower in bf16 on a CPU
    rows = Rows(encoder.get_input_embeddings().weight, ids)
    with torch.no_grad():  # begin at the mixture of those names that are one token
        single = {k: i[0] for k, n in enumerate(lessons.names) if len(i := pieces_of(tokenizer, n)) == 1}
        some = weights[:, list(single)]
        share = some.sum(1, keepdim=True).clamp(max=1)
        rows.learned.weight[:-1] = (1 - share) * rows.table[ids] + some @ rows.table[list(single.values())]
    encoder.set_input_embeddings(rows)
    optimizer = torch.optim.SparseAdam(list(rows.parameters()), RATE, betas=(0.9, 0.98))
    log: list[float] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min(1, (step + 1) / 20) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
            )
        chosen = rng.choice(len(lessons.words), min(BATCH, len(lessons.words)), replace=False)
        template = "{}" if rng.random() < 0.7 else TEMPLATES[rng.integers(len(TEMPLATES))]
        made = [prompt_ids(tokenizer, [int(ids[c])], template) for c in chosen]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = hidden_states(encoder, pad([m[0] for m in made], end)).float()
        loss = teacher.distance(hidden[:, made[0][1]], goal[chosen], scale).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.append(float(loss.detach()))
        if (step + 1) % 50 == 0:
            print(f"{step + 1} loss {np.mean(log[-50:]):.3f} (the mean of all names: 1.3)", flush=True)
    return rows.whole()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--entries", type=int, default=ENTRIES, help="of the tokenizer, filled up with whole words")
    parser.add_argument("--kin", type=float, default=KIN, help="what a synonym of WordNet adds to the cosine")
    parser.add_argument("--without-dictionary", action="store_true", help="for the words that the evaluation asks")
    parser.add_argument("--average", type=Path, help="average.safetensors of the gpu stage, instead of a checkpoint")
    parser.add_argument("--result", default=CHECKPOINTS[0])
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    library, state = Library(), newest_checkpoint(a.average, CHECKPOINTS[1:])
    folder, nouns = run_folder(), Nouns(fetch())
    before = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    novel = novel_words(library.split, library.concepts)
    kept = {*novel, *spoken_words(library)}
    spoken = [n for c in library.concepts for n in [c["label"], *c["names"]]] + [*TEMPLATES, *ADJECTIVES, *ANYTHING]
    base = spoken_entries(before, spoken)
    names = list(known_names(library))
    more = further_words(base, nouns, names, spoken, a.entries - len(base), lambda w: w in kept or singular(w) in novel)
    tokenizer = with_words(base, more)
    dictionary = not a.without_dictionary
    lessons = make_lessons(library, tokenizer, nouns, SentenceModel(), novel, a.temperature, a.kin, dictionary)
    print(f"{len(lessons.words)} words, {len(more)} of them new; {len(lessons.names)} known names", flush=True)
    _, encoder = trained_models(state)
    take_rows(encoder, before, tokenizer)
    teacher = Teacher(state, before, tokenizer)
    table = teach(teacher, encoder, lessons, a.steps)
    torch.save({"average": {**state["average"], TABLE: table}}, folder / a.result)
    tokenizer.save_pretrained(folder / "tokenizer")


if __name__ == "__main__":
    main()
