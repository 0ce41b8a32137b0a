"""A base model of another family, as a stranger would write it: no UNet, no text encoder, a pixel's "query" is its colour.

A class word is a colour name; a token is a colour.  It keeps its own layout of a capture and does its own maps and fits, and
imports nothing of this project but the plugin API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ovam_labeler.plugin_api import (
    Attributor,
    Backend,
    BackendError,
    BackendSpec,
    Calibration,
    Capture,
    CaptureInfo,
    ClassQuery,
    Fingerprint,
    Generated,
    Needs,
    Progress,
    PromptTooLongError,
    Reader,
    TokenExample,
    TokenFit,
    TokenRecipe,
    TokenSet,
)

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "white": (1.0, 1.0, 1.0)}
SHARPNESS = 8.0
MOST_WORDS = 16
SETTINGS = {"side": 32, "version": 1}


class ColourReader:
    def __init__(self) -> None:
        self.unet_passes = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return SETTINGS

    def capture(
        self, image: np.ndarray, needs: Needs, *, prompt: str = "", seed: int = 0, progress: Progress | None = None
    ) -> Capture:
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise BackendError("The image must be uint8 of shape (height, width, 3).")
        _words(prompt)
        if progress is not None:
            progress(0.0, "Looking at the colours.")
        self.unet_passes += 1
        height, width = image.shape[:2]
        size = (max(1, round(32 * height / max(height, width))), max(1, round(32 * width / max(height, width))))
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        small = torch.nn.functional.interpolate(pixels, size, mode="area")[0]
        info = CaptureInfo(
            "received", (height, width), size, (0,), prompt=prompt, seed=seed, layout={"what": "colours"}
        )
        return Capture(info, {"colours": small.contiguous()})

    def generate(
        self,
        prompt: str,
        needs: Needs,
        *,
        seed: int,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        size: tuple[int, int] | None = None,
        progress: Progress | None = None,
    ) -> Generated:
        height, width = size or (32, 48)
        drawn = np.random.default_rng(seed).integers(0, 90, (height, width, 3))
        for word in _words(prompt):
            drawn[: height // 2] += (np.array(COLOURS.get(word, (0, 0, 0))) * 160).astype(int)
        image = drawn.clip(0, 255).astype(np.uint8)
        read = self.capture(image, needs, prompt=prompt, seed=seed, progress=progress)
        info = CaptureInfo("generated", (height, width), read.info.latent_size, (0,), prompt=prompt, seed=seed)
        return Generated(image, Capture(info, read.tensors))


class ColourAttributor:
    embedding_size = 3
    fingerprint = Fingerprint(hashlib.sha256(repr(COLOURS).encode()).hexdigest(), "colour", SETTINGS)
    calibration = Calibration(
        0.5, 0.5, {"bias": 1.0}, {"bias": 1.0}, 0.5, TokenRecipe(epochs=10), TokenRecipe(epochs=10)
    )

    def words(self, label: str, prompt: str | None = None) -> ClassQuery:
        if not label.strip():
            raise BackendError("The label is empty.")
        _words(prompt or label)
        return self.token(np.stack([np.full(3, 0.5), self.noun(label)]))

    def noun(self, label: str) -> np.ndarray:
        values = [COLOURS.get(word, (0.4, 0.4, 0.4)) for word in _words(label)]
        return np.mean(values, axis=0).astype(np.float32)

    def token(self, embedding: np.ndarray) -> ClassQuery:
        values = np.asarray(embedding, np.float32)
        if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] != 3 or not np.isfinite(values).all():
            raise BackendError(f"The token must be a finite (n, 3) array; its shape is {values.shape}.")
        return (TokenSet(torch.from_numpy(values.copy()), tuple(range(1, len(values)))),)

    def knows(self, label: str) -> bool:
        return label in COLOURS

    def maps(self, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        colours = capture.tensors["colours"]
        found = []
        for query in queries:
            every = []
            for tokens in query:
                distance = ((colours[None] - tokens.embeddings[:, :, None, None]) ** 2).sum(1)
                every.append(torch.softmax(-SHARPNESS * distance, 0)[list(tokens.columns)].mean(0))
            found.append(torch.stack(every).mean(0))
        return torch.stack(found)

    def learn(
        self,
        examples: Sequence[TokenExample],
        recipe: TokenRecipe,
        *,
        label: str,
        start: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> TokenFit:
        if not examples or not any((e.weight > 0).any() for e in examples):
            raise BackendError("There is no annotated pixel to learn from.")
        begin = np.stack([np.full(3, 0.5)] + [self.noun(label)] * (recipe.tokens - 1)) if start is None else start
        values = torch.tensor(begin, dtype=torch.float32, requires_grad=True)
        optimizer = torch.optim.Adam([values], 0.05)
        losses: list[float] = []
        kept = values.detach().clone()
        for epoch in range(recipe.epochs):
            loss = torch.stack([self._loss(e, values) for e in examples]).mean()
            if not losses or loss.item() < min(losses):
                kept = values.detach().clone()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress((epoch + 1) / recipe.epochs, "Learning a colour.")
        return TokenFit(kept.numpy(), tuple(losses), losses.index(min(losses)), 0.0)

    def _loss(self, example: TokenExample, values: torch.Tensor) -> torch.Tensor:
        query = (TokenSet(values, tuple(range(1, len(values)))),)
        (found,) = self.maps(example.capture, [query])
        target = torch.from_numpy(example.target)[None, None]
        small = torch.nn.functional.interpolate(target, found.shape, mode="area")[0, 0]
        return torch.nn.functional.binary_cross_entropy(found.clamp(1e-4, 1 - 1e-4), small)


class Contrast:
    """A mask method: stretch each map to 0..1."""

    name = "contrast"

    def needs(self, attributor: Attributor) -> Needs:
        return Needs()

    def maps(self, attributor: Attributor, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        maps = attributor.maps(capture, queries)
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return (maps - low) / (high - low).clamp(min=1e-9)


class Smooth:
    """A refiner: a box blur of three pixels, whatever the image."""

    name = "smooth"

    def refine(self, image: np.ndarray, soft: np.ndarray) -> np.ndarray:
        padded = np.pad(soft, 1, mode="edge")
        height, width = soft.shape
        return np.mean(
            [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0, dtype=np.float32
        )


def _words(text: str) -> list[str]:
    words = text.split()
    if len(words) > MOST_WORDS:
        raise PromptTooLongError(f"The prompt has {len(words)} words; {MOST_WORDS} are allowed.")
    return words


def load(model: str, device: str = "cpu", progress: Progress | None = None) -> Backend:
    made: list[Reader] = []

    def reader() -> Reader:
        if not made:
            made.append(ColourReader())
        return made[0]

    return Backend("colour", ColourAttributor(), reader, SETTINGS)


SPEC = BackendSpec("colour", "Pixels by their colour.", lambda model: model == "colours/basic", load)
