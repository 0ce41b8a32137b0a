"""A base model small enough for tests, and real: it reads colours, knows three words, and learns by logistic regression.

A capture holds the mean colour of each cell of a 16-pixel grid (q = [r, g, b, 1]); a class map is the sigmoid of
q . (class - background).  So masks, learning, evidence and captures are all true of the images the tests draw.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from backends.contract import (
    Backend,
    BackendError,
    Calibration,
    Capture,
    CaptureInfo,
    ClassQuery,
    Fingerprint,
    Generated,
    Needs,
    Progress,
    PromptTooLongError,
    TokenExample,
    TokenFit,
    TokenRecipe,
    TokenSet,
)

CELL = 4
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
GROUND = (120, 120, 120)
SETTINGS = {"timesteps": [50], "cell": CELL}


def scene(
    *objects: tuple[tuple[int, int, int], tuple[int, int, int, int]], size: tuple[int, int] = (64, 96)
) -> np.ndarray:
    """uint8 (H, W, 3): boxes (top, left, height, width) of a colour on grey ground."""
    pixels = np.empty((*size, 3), np.uint8)
    pixels[:] = GROUND
    for colour, (top, left, height, width) in objects:
        pixels[top : top + height, left : left + width] = colour
    return pixels


def box(top: int, left: int, height: int, width: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


class ColourReader:
    """Counts its passes; ``gate`` holds a read until it is set, so that tests can look at work in flight."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.unet_passes = 0
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def capture(
        self, image: np.ndarray, needs: Needs, *, prompt: str = "", seed: int = 0, progress: Progress | None = None
    ) -> Capture:
        return self._record(image, "received", prompt, None, progress)

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
        if len(prompt) > 200:
            raise PromptTooLongError("The prompt is longer than 200 characters.")
        rng = np.random.default_rng(seed)
        colour = next((rgb for name, rgb in COLOURS.items() if name in prompt), (200, 200, 30))
        height, width = size or (64, 64)
        top, left = rng.integers(0, 24, 2)
        image = scene((colour, (int(top), int(left), 32, 32)), size=(height, width))
        return Generated(image, self._record(image, "generated", prompt, seed, progress))

    def _record(
        self, image: np.ndarray, origin: str, prompt: str, seed: int | None, progress: Progress | None
    ) -> Capture:
        self.threads.add(threading.get_ident())
        self.gate.wait(20)
        if min(image.shape[:2]) < 2:
            raise BackendError("The image is too small to be read; at least 2x2 pixels are needed.")
        if progress is not None:
            progress(0.5, "Reading the image")
        self.unet_passes += 1
        height, width = image.shape[:2]
        grid = (max(1, height // CELL), max(1, width // CELL))
        colours = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
        cells = torch.nn.functional.adaptive_avg_pool2d(colours, grid)[0]
        q = torch.cat([cells, torch.ones(1, *grid)]).permute(1, 2, 0).contiguous()
        info = CaptureInfo(origin, (height, width), grid, (50,), prompt=prompt, seed=seed, steps=1, model="colours")
        return Capture(info, {"q": q})


class ColourAttributor:
    """Knows the words of :data:`COLOURS`; any other word means a fixed, arbitrary, faint direction."""

    embedding_size = 4

    def __init__(self, space: str = "space-1") -> None:
        self.fingerprint = Fingerprint(space, "colours", {"steps": 1})
        gentle = TokenRecipe("adam", epochs=60, learning_rate=0.1, ridge=1e-3)
        self.calibration = Calibration(
            word_threshold=0.5,
            token_threshold=0.5,
            word_presence={"bias": -4.0, "top": 8.0},
            token_presence={"bias": -4.0, "top": 8.0},
            presence_cut=0.5,
            word_recipe=gentle,
            token_recipe=TokenRecipe("adam", epochs=200, learning_rate=0.3, start="noun"),
        )
        self.fits = 0

    def words(self, label: str, prompt: str | None = None) -> ClassQuery:
        if not label.strip():
            raise BackendError("The label is empty; a class needs a name.")
        if len(prompt or label) > 200:
            raise PromptTooLongError(f"The label of {len(prompt or label)} characters is too long.")
        return self.token(np.stack([np.zeros(4, np.float32), self.noun(prompt or label)]))

    def noun(self, label: str) -> np.ndarray:
        if label in COLOURS:
            rgb = np.array(COLOURS[label], np.float32) / 255
            direction = rgb - rgb.mean()
            return np.append(direction * 14, -2.0).astype(np.float32)
        seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big")
        direction = np.random.default_rng(seed).normal(0, 0.3, 3)
        return np.append(direction, -2.0).astype(np.float32)

    def token(self, embedding: np.ndarray) -> ClassQuery:
        if embedding.shape != (2, 4) or not np.isfinite(embedding).all():
            raise BackendError("The token embedding must be (2, 4) and finite.")
        return (TokenSet(torch.from_numpy(embedding.astype(np.float32)), (1,)),)

    def knows(self, label: str) -> bool:
        return label in COLOURS

    def maps(self, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        deltas = torch.stack([q[0].embeddings[1] - q[0].embeddings[0] for q in queries])
        return torch.sigmoid(torch.einsum("hwe,ce->chw", capture.tensors["q"], deltas))

    def learn(
        self,
        examples: Sequence[TokenExample],
        recipe: TokenRecipe,
        *,
        label: str,
        start: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> TokenFit:
        self.fits += 1
        origin = self.noun(label).astype(np.float64)
        data = [
            (e.capture.tensors["q"].numpy(), *(self._on_grid(x, e.capture) for x in (e.target, e.weight)))
            for e in examples
        ]
        if not any(weight.sum() for _, _, weight in data):
            raise BackendError("All weights are zero; nothing can be learned.")
        delta, losses, best = origin.copy(), [], origin.copy()
        first, second = np.zeros(4), np.zeros(4)
        for epoch in range(1, recipe.epochs + 1):  # Adam; torch's own optimisers take half a minute to import
            loss = recipe.ridge * ((delta - origin) ** 2).sum()
            gradient = 2 * recipe.ridge * (delta - origin)
            for q, target, weight in data:
                logits = q @ delta
                share = weight / max(weight.sum(), 1e-6) / len(data)
                loss += (share * (np.logaddexp(0, logits) - target * logits)).sum()
                gradient += np.einsum("hw,hwe->e", share * (1 / (1 + np.exp(-logits)) - target), q)
            if not losses or loss < min(losses):
                best = delta.copy()
            losses.append(float(loss))
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            step = first / (1 - 0.9**epoch) / (np.sqrt(second / (1 - 0.999**epoch)) + 1e-8)
            delta = delta - recipe.learning_rate * step
            if progress is not None and epoch % 20 == 0:
                progress(epoch / recipe.epochs, f"epoch {epoch}")
        embedding = np.stack([np.zeros(4), best]).astype(np.float32)
        q, target, _ = data[0]
        mask, truth = (q @ best) > 0, target > 0.5
        iou = float((mask & truth).sum() / max(1, (mask | truth).sum()))
        return TokenFit(embedding, tuple(losses), int(np.argmin(losses)), iou)

    @staticmethod
    def _on_grid(values: np.ndarray, capture: Capture) -> np.ndarray:
        grid = tuple(capture.tensors["q"].shape[:2])
        return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(values)[None, None], grid)[0, 0].numpy()


class ColourModel:
    """What a backend loader makes; keeps hold of its parts for the tests."""

    def __init__(self, space: str = "space-1") -> None:
        self.attributor = ColourAttributor(space)
        self.reader = ColourReader()
        self.loads = 0
        self.readers = 0

    def load(self, model: str, backend: str | None, device: str, progress: Any) -> Backend:
        self.loads += 1
        return Backend("colours", self.attributor, self._reader, SETTINGS)

    def _reader(self) -> ColourReader:
        self.readers += 1
        return self.reader
