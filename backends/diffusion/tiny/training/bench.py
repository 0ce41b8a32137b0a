"""The exported folder on the composed test scenes: cached queries, tokens of words, maps and IoU at every threshold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .export import WEIGHTS
from .grounding import Grounding, alphas_cumulative
from .library import Library
from .sources import run_folder
from .testset import GROUPS
from .text import hidden_states, pieces_of, prompt_ids
from .tokenizer import LENGTH

BINS = 40  # thresholds k / BINS
Queries = list[Tensor]


class Bench:
    """Model and scenes of some groups of the test set."""

    def __init__(self, groups: tuple[str, ...], weights: Path = WEIGHTS, timestep: int = 50, seed: int = 0) -> None:
        self.library = Library()
        unet = UNet2DConditionModel.from_pretrained(weights / "unet", torch_dtype=torch.float32)
        self.net = Grounding(unet).eval().requires_grad_(False)
        settings = json.loads((weights / "ovam.json").read_text())
        self.net.log_steps.data = torch.tensor(settings["training"]["steps"]).log()
        self.text = CLIPTextModel.from_pretrained(weights / "text_encoder", dtype=torch.float32).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(weights / "tokenizer")
        data = np.load(run_folder() / "test.npz")
        chosen = np.isin(data["group"], [GROUPS.index(g) for g in groups])
        for key in ("concept", "group", "kind", "sprite", "style", "distractors", "mask", "cover", "share", "latent"):
            setattr(self, key, data[key][chosen])
        self.family = np.array([self.library.family[s] for s in self.style])
        empty = self.tokenizer("", padding="max_length", max_length=LENGTH, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            self.empty = hidden_states(self.text, empty)
        self.start = self.empty[0, 0]
        self.queries = self.read(self.latent, timestep, seed)
        self.target = torch.from_numpy(self.share).float()
        self._words: dict[tuple[str, str], Tensor] = {}

    concept: np.ndarray
    group: np.ndarray
    kind: np.ndarray
    sprite: np.ndarray
    style: np.ndarray
    distractors: np.ndarray
    mask: np.ndarray
    cover: np.ndarray
    share: np.ndarray
    latent: np.ndarray

    @torch.no_grad()
    def read(self, latents: np.ndarray, timestep: int, seed: int, batch: int = 64) -> Queries:
        """Queries of one noised step under the empty prompt."""
        generator, alpha = torch.Generator().manual_seed(seed), alphas_cumulative()[timestep]
        parts = []
        for i in range(0, len(latents), batch):
            clean = torch.from_numpy(latents[i : i + batch])
            noised = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn(clean.shape, generator=generator)
            with torch.autocast("cpu", torch.bfloat16):
                _, q = self.net(noised, torch.full((len(clean),), timestep), self.empty.expand(len(clean), -1, -1))
            parts.append(q)
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    def take(self, rows: np.ndarray | list[int]) -> Queries:
        index = torch.as_tensor(np.asarray(rows))
        return [q[index] for q in self.queries]

    @torch.no_grad()
    def word(self, name: str, template: str = "{}") -> Tensor:
        """(pieces, E) states of a name's pieces."""
        key = (name, template)
        if key not in self._words:
            ids, first, last = prompt_ids(self.tokenizer, pieces_of(self.tokenizer, name), template)
            self._words[key] = hidden_states(self.text, torch.tensor([ids]))[0, first:last]
        return self._words[key]

    def noun(self, name: str) -> Tensor:
        """(E,) mean of the pieces: where a token starts."""
        return self.word(name).mean(0)

    @torch.no_grad()
    def word_maps(self, queries: Queries, names: list[str], template: str = "{}") -> Tensor:
        """(S, words, 16, 16): mean of the two-token maps of each word's pieces."""
        parts = [self.word(name, template) for name in names]
        maps = self.net.pair_maps(queries, torch.cat(parts), self.start)[0]
        return torch.stack([m.mean(1) for m in maps.split([len(p) for p in parts], 1)], 1)

    @torch.no_grad()
    def token_maps(self, queries: Queries, tokens: Tensor) -> Tensor:
        """(S, tokens, 16, 16) of learned tokens (T, E)."""
        return self.net.pair_maps(queries, tokens, self.start)[0]

    def rows(self, concept: int, kinds: str = "TU") -> np.ndarray:
        """Scenes of a concept."""
        return np.where((self.concept == concept) & np.isin(self.kind, list(kinds)))[0]


def iou_curves(maps: Tensor, masks: np.ndarray) -> np.ndarray:
    """(S, W, BINS) IoU of (S, W, 16, 16) maps against (S, 128, 128) masks at thresholds relative to each map's range."""
    scenes, words = maps.shape[:2]
    up = F.interpolate(maps, masks.shape[1:], mode="bilinear", align_corners=False).reshape(scenes * words, -1)
    low, high = up.min(1, keepdim=True)[0], up.max(1, keepdim=True)[0]
    truth = torch.as_tensor(masks).reshape(scenes, 1, -1).expand(-1, words, -1).reshape(scenes * words, -1)
    bins = ((up - low) / (high - low + 1e-8) * BINS).long().clamp(0, BINS - 1) + torch.arange(scenes * words)[
        :, None
    ] * BINS
    count = torch.bincount(bins.flatten(), minlength=scenes * words * BINS).view(-1, BINS).float()
    hits = torch.bincount(bins[truth], minlength=scenes * words * BINS).view(-1, BINS).float()
    above, inside = (x.flip(1).cumsum(1).flip(1) for x in (count, hits))
    total = truth.sum(1, keepdim=True).float()
    return (inside / (above + total - inside).clamp(min=1)).view(scenes, words, BINS).numpy()
