"""Text inside the training loop: names under random templates, encoded on the fly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .library import Library
from .sources import run_folder
from .text import TEMPLATES, hidden_states, pad, pieces_of, prompt_ids
from .tokenizer import LENGTH

ANYTHING = ("thing", "object", "something", "item", "an object", "foreground object")
MOST_NAMES = 8
PIECES = 64  # the pieces of a batch are a multiple of this


def names_of(concept: dict[str, Any]) -> list[str]:
    """A concept's label and other names, those that captions may use."""
    return list(dict.fromkeys([concept["label"], *concept["names"]]))[:MOST_NAMES]


def known_names(library: Library) -> dict[str, list[str]]:
    """Names of known concepts, lower case, each with its concept's keywords."""
    found: dict[str, list[str]] = {}
    for concept in (library.concepts[c] for c in library.base):
        for name in names_of(concept):
            found.setdefault(name.lower(), concept["tags"])
    return found


@dataclass
class Encoded:
    """Words as tokens: every piece (P, E), which word it belongs to as an averaging matrix (P, W), and the mean (W, E)."""

    pieces: Tensor
    average: Tensor
    mean: Tensor
    start: Tensor
    conditions: Tensor


class Speaker:
    """Chooses names and prompts and runs the text encoder over all of them in one batch."""

    def __init__(self, library: Library, encoder: CLIPTextModel) -> None:
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(run_folder() / "tokenizer")
        self.encoder = encoder
        self.names = [names_of(c) for c in library.concepts]
        self._pieces = lru_cache(None)(lambda name: tuple(pieces_of(self.tokenizer, name)))

    def name(self, concept: int, rng: np.random.Generator) -> str:
        """One of the concept's names; its label half the time."""
        names = self.names[concept]
        return names[0] if rng.random() < 0.4 else names[rng.integers(len(names))]

    @torch.no_grad()
    def near(self, concepts: list[int], most: int = 8) -> dict[int, np.ndarray]:
        """Per concept the ``most`` others whose labels mean nearly the same."""
        ids = [prompt_ids(self.tokenizer, list(self._pieces(self.names[c][0]))[:8], "{}") for c in concepts]
        padded = pad([i for i, _, _ in ids], self.tokenizer.eos_token_id).to(self.encoder.device)
        hidden = hidden_states(self.encoder, padded).float()
        means = torch.stack([h[first:last].mean(0) for h, (_, first, last) in zip(hidden, ids, strict=True)])
        unit = torch.nn.functional.normalize(means - means.mean(0), dim=1)
        order = (unit @ unit.T).topk(most + 1, 1).indices.tolist()
        return {
            c: np.array([concepts[k] for k in row if concepts[k] != c][:most])
            for c, row in zip(concepts, order, strict=True)
        }

    def scene_prompt(self, concepts: list[int], rng: np.random.Generator) -> str:
        """``a photograph of a cat and a dog`` and the like; the empty prompt for a scene without words."""
        names = [self.name(c, rng) for c in concepts if c >= 0]
        if not names:
            return ""
        rng.shuffle(names)
        spoken = " and a ".join(names) if rng.random() < 0.7 else " , ".join(names)
        template = TEMPLATES[rng.integers(len(TEMPLATES))] if rng.random() < 0.5 else "a photograph of a {}"
        return template.format(spoken)

    def __call__(self, concepts: list[int], prompts: list[str], rng: np.random.Generator) -> Encoded:
        """Encode one name per concept (plus "thing" as the last word) and full-length prompts (n, LENGTH, E)."""
        names = [self.name(c, rng) for c in concepts] + [ANYTHING[rng.integers(len(ANYTHING))]]
        made = []
        for name in names:
            template = "{}" if rng.random() < 0.5 else TEMPLATES[rng.integers(len(TEMPLATES))]
            made.append(prompt_ids(self.tokenizer, list(self._pieces(name))[:8], template))
        end = self.tokenizer.eos_token_id
        whole = self.tokenizer(prompts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        device = self.encoder.device
        with torch.autocast(device.type, torch.bfloat16):
            words = hidden_states(self.encoder, pad([m[0] for m in made], end).to(device)).float()
            conditions = hidden_states(self.encoder, whole["input_ids"].to(device)).float()
        owner = [w for w, m in enumerate(made) for _ in range(m[1], m[2])]
        place = [k for m in made for k in range(m[1], m[2])]
        weight = np.zeros((len(owner) + -len(owner) % PIECES, len(made)), np.float32)
        weight[np.arange(len(owner)), owner] = 1
        average = torch.from_numpy(weight / weight.sum(0).clip(1)).to(device)
        # filled up with pieces of no word, so that a GPU meets few shapes and finds their memory again
        unused = len(weight) - len(owner)
        pieces = words[owner + [0] * unused, place + [0] * unused]
        return Encoded(pieces, average, average.T @ pieces, conditions[0, 0], conditions)
