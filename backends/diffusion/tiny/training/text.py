"""Stage ``text``: distil sentence meanings into a small CLIP text encoder.

At the pieces of a name, under any prompt, the encoder's last hidden state shall be the (reduced) sentence embedding
of the name. The start token's state is constant, because attention is causal: it becomes the background token.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from .sentences import SentenceModel
from .sources import run_folder
from .tokenizer import LENGTH, make_tokenizer, make_vocabulary, pieces_of

WIDTH = 256
RATE, BATCH = 1e-3, 128
TEMPLATES = (
    "{}",
    "a {}",
    "the {}",
    "an image of a {}",
    "a photograph of a {}",
    "a photo of the {}",
    "a picture of one {}",
    "an image of the {} on a beach",
    "a photograph of a {} in a room",
    "a {} on a plain background",
    "this is a {}",
    "there is a {} in the picture",
    "a drawing of a {}",
    "an illustration of the {}",
    "a close view of a {}",
    "a small {}",
    "a large {} in the middle",
    "many {}",
    "a photograph of a {} and something else",
    "an icon of a {}",
    "two things and a {}",
    "a bad photo of a {}",
    "a {} next to a wall",
    "an emoji of a {}",
    "class {}",
    "label : {}",
)
# Words of common annotation work that a frequency list has too late: they get a token of their own.
_LABEL_WORDS = """defect scratch crack dent rust corrosion stain hole weld bolt screw gear pipe cable wire valve person man woman
child pedestrian rider car truck bus train boat ship bicycle motorcycle airplane vehicle wheel tyre traffic light
sign road lane sidewalk building house wall fence pole vegetation tree grass terrain sky bird cat dog horse sheep
cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis snowboard kite bat glove
skateboard surfboard racket bottle glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot
pizza donut cake chair couch plant bed table toilet tv laptop mouse remote keyboard phone microwave oven toaster
sink refrigerator book clock vase scissors toothbrush cell nucleus tumor lesion polyp vessel bone lung liver kidney
tooth leaf fruit weed pest crop tomato potato pepper grape wheat corn label logo text barcode box pallet helmet vest
mask goggles foreground background animal furniture tool food pudding wreath teapot lamp candle lantern snail owl
penguin squirrel hedgehog otter badger lobster shrimp"""
LABEL_WORDS = _LABEL_WORDS.split()
ADJECTIVES = re.split(
    " ", "red green blue yellow black white small big old new broken wooden metal plastic round long wild toy"
)


def reduce(vectors: np.ndarray) -> np.ndarray:
    """PCA to WIDTH dimensions, spectrum flattened half-way, each vector of unit variance."""
    centred = vectors - vectors.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    top = np.argsort(-values)[:WIDTH]
    out = centred @ axes[:, top] / values[top] ** 0.25
    return (out / out.std(1, keepdims=True)).astype(np.float32)


def make_names(concepts: list[dict], words: list[str], rng: np.random.Generator, phrases: int = 6000) -> list[str]:
    """Words, emoji names and tags, and made-up phrases and codes such as ``red apple`` and ``defect_07``."""
    emoji = [name.lower() for c in concepts for name in [c["label"], *c["names"], *c["tags"]]]
    nouns = [c["label"] for c in concepts] + LABEL_WORDS + words[:4000]
    made = []
    for _ in range(phrases):
        noun = nouns[rng.integers(len(nouns))]
        kind = rng.random()
        if kind < 0.5:
            made.append(f"{ADJECTIVES[rng.integers(len(ADJECTIVES))]} {noun}")
        elif kind < 0.75:
            made.append(f"{noun} {nouns[rng.integers(len(nouns))]}")
        else:
            separator = ["_", " ", "-", ""][rng.integers(4)]
            made.append(f"{noun}{separator}{rng.integers(100):0{rng.integers(1, 3)}d}")
    return list(dict.fromkeys([*words, *emoji, *made, "thing", "object", "something", "item", "foreground object"]))


def spell(tokenizer: PreTrainedTokenizerFast, name: str, table: dict[str, int], rng: np.random.Generator) -> list[int]:
    """Ids of a name; now and then with its words cut into smaller pieces, as an unknown word would be."""
    if rng.random() > 0.2 or not re.fullmatch("[a-z ]+", name):
        return pieces_of(tokenizer, name)
    ids = []
    for word in name.split():
        at = 0
        while at < len(word):
            longest = len(word) - at if at else max(1, len(word) - 1)
            for size in range(min(longest, int(rng.integers(1, 7))), 0, -1):
                piece = ("##" if at else "") + word[at : at + size]
                if piece in table:
                    ids.append(table[piece])
                    at += size
                    break
    return ids


def prompt_ids(tokenizer: PreTrainedTokenizerFast, pieces: list[int], template: str) -> tuple[list[int], int, int]:
    """Token ids of a template around given name pieces, and where the pieces are (first, last + 1)."""
    front, back = _around(tokenizer, template)
    pieces = pieces[: LENGTH - len(front) - 1]
    ids = [*front, *pieces, *back][:LENGTH]
    return ids, len(front), len(front) + len(pieces)


@lru_cache(maxsize=1024)
def _around(tokenizer: PreTrainedTokenizerFast, template: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and after a name. Kept: the tokenizer takes 40 microseconds a call, and a step of training says hundreds."""
    before, after = template.split("{}")
    front = tokenizer.bos_token_id, *pieces_of(tokenizer, before)
    return front, (*pieces_of(tokenizer, after), tokenizer.eos_token_id)


def pad(rows: list[list[int]], end: int) -> torch.Tensor:
    """Right-padded (B, longest) ids."""
    longest = max(map(len, rows))
    return torch.tensor([row + [end] * (longest - len(row)) for row in rows])


def make_encoder(vocabulary: int, start: int, end: int) -> CLIPTextModel:
    """Untrained 2-layer encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=512,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def hidden_states(encoder: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states (B, L, WIDTH), after the final norm, as a pipeline feeds them to the UNet."""
    return encoder(input_ids=ids).last_hidden_state


def distil(minutes: float) -> None:
    """Make the tokenizer and the encoder of this run; saved as ``tokenizer/`` and ``text_encoder/``."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng, folder = np.random.default_rng(0), run_folder()
    concepts = json.loads((folder / "meta.json").read_text())["concepts"]
    sentences = SentenceModel()
    spoken = [n for c in concepts for n in [c["label"], *c["names"], *c["tags"]]]
    prompts = [t.format("") for t in TEMPLATES]
    vocabulary = make_vocabulary(sentences.vocabulary, [*spoken, *prompts, *ADJECTIVES, *LABEL_WORDS])
    tokenizer = make_tokenizer(vocabulary)
    words = [w for w in vocabulary if re.fullmatch("[a-z]{2,}", w)]
    names = make_names(concepts, words, rng)
    begin = time.time()
    targets = reduce(sentences(names))
    print(f"{len(vocabulary)} entries, {len(names)} names embedded in {time.time() - begin:.0f}s", flush=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder = make_encoder(len(vocabulary), tokenizer.bos_token_id, tokenizer.eos_token_id)
    table = {entry: i for i, entry in enumerate(vocabulary)}
    embedding = encoder.get_input_embeddings().weight
    with torch.no_grad():
        embedding.normal_(0, 0.3)
        row_of = {name: i for i, name in enumerate(names)}
        for word in words:
            embedding[table[word]] = torch.from_numpy(targets[row_of[word]])
    known = np.array([row_of[n.lower()] for n in spoken])
    goal = torch.from_numpy(targets)
    slow = [embedding]
    fast = [p for p in encoder.parameters() if p is not embedding]
    optimizer = torch.optim.AdamW(
        [{"params": slow, "scale": 0.3}, {"params": fast, "scale": 1.0}],
        RATE,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )
    begin, step, log = time.time(), 0, []
    while (done := (time.time() - begin) / (minutes * 60)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE
                * group["scale"]
                * min(1, (step + 1) / 100)
                * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * done)))
            )
        rows = np.where(rng.random(BATCH) < 0.35, rng.choice(known, BATCH), rng.integers(0, len(names), BATCH))
        spelled = [spell(tokenizer, names[r], table, rng) for r in rows]
        bare = rng.random(BATCH) < 0.3
        made = [
            prompt_ids(tokenizer, p, "{}" if b else TEMPLATES[rng.integers(len(TEMPLATES))])
            for p, b in zip(spelled, bare, strict=True)
        ]
        ids = pad([m[0] for m in made], tokenizer.eos_token_id)
        at = torch.arange(ids.shape[1])
        inside = (
            (at >= torch.tensor([m[1] for m in made])[:, None]) & (at < torch.tensor([m[2] for m in made])[:, None])
        ).float()
        with torch.autocast("cpu", torch.bfloat16):
            hidden = hidden_states(encoder, ids).float()
        target = goal[rows]
        count = inside.sum(1, keepdim=True).clamp(min=1)
        mean = (hidden * inside[..., None]).sum(1) / count
        each = (((hidden - target[:, None]) ** 2).mean(-1) * inside).sum(1) / count[:, 0]
        loss = F.mse_loss(mean, target) + 0.5 * each.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(fast, 1.0)
        optimizer.step()
        step += 1
        log.append((loss.item(), F.cosine_similarity(mean, target).mean().item()))
        if step % 100 == 0:
            print(
                f"{step} {time.time() - begin:.0f}s loss {np.mean(log, 0)[0]:.3f} cosine {np.mean(log, 0)[1]:.3f}",
                flush=True,
            )
            log = []
    encoder.save_pretrained(folder / "text_encoder")
    print("FINAL", step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    distil(parser.parse_args().minutes)


if __name__ == "__main__":
    main()
