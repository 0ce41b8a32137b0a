"""Attributor of Stable Diffusion models: text encoder and key projections only, no UNet (Eq. 4-7)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch

from backends.attention.heatmaps import class_maps, heat_maps
from backends.attention.queries import KeyProjection, QueryBundle
from backends.attention.regions import region_vectors
from backends.attention.spread import Affinity, holds_affinity
from backends.attention.token_optimization import FitExample, initial_embedding, learn_token
from backends.contract import (
    BackendError,
    Calibration,
    Capture,
    ClassQuery,
    Fingerprint,
    Progress,
    TokenExample,
    TokenFit,
    TokenRecipe,
    TokenSet,
)
from backends.diffusion.calibration import PAIR, Attribution
from backends.diffusion.text import EncodedText, TextEncoder, clean, find_word


class StableDiffusionAttributor:
    """Turns captures and embeddings into maps; implements :class:`backends.contract.Attributor`.  Thread-safe.

    Args:
        text: tokenizer and text encoder.
        projections: key projections of the recorded layers, by name.
        fingerprint: identity of the embedding space.
        calibration: the model's defaults.
        attribution: how a word becomes X'.
        known_words: words of the model's training, lower case; ``None`` = it knows any.
        device: where maps are computed.
    """

    def __init__(
        self,
        text: TextEncoder,
        projections: Mapping[str, KeyProjection],
        fingerprint: Fingerprint,
        calibration: Calibration,
        attribution: Attribution,
        known_words: frozenset[str] | None = None,
        device: str = "cpu",
    ) -> None:
        self._text = text
        self._projections = dict(projections)
        self._fingerprint = fingerprint
        self._calibration = calibration
        self._attribution = attribution
        self._known_words = known_words
        self._device = device
        self._size = next(iter(self._projections.values())).embedding_size
        self._moved: dict[str, KeyProjection] | None = None
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> Fingerprint:
        return self._fingerprint

    @property
    def calibration(self) -> Calibration:
        return self._calibration

    @property
    def embedding_size(self) -> int:
        return self._size

    @property
    def projections(self) -> Mapping[str, KeyProjection]:
        """Key projections by layer name (for methods that need more than :meth:`maps`)."""
        return self._projections

    @property
    def text(self) -> TextEncoder:
        """The text encoder, which the reader shares."""
        return self._text

    @property
    def known_words(self) -> frozenset[str] | None:
        """Words of the model's training, lower case; ``None`` where any word counts as known."""
        return self._known_words

    def words(self, label: str, prompt: str | None = None) -> ClassQuery:
        """X' of a class word, see :meth:`backends.contract.Attributor.words`.

        A label of several pieces gives the mean of its pieces' maps.  Where a prompt holds the label several times, all
        of its occurrences count.
        """
        encoded, rows = self._locate(label, prompt)
        if self._attribution.context == PAIR:
            start = encoded.embeddings[0]
            return tuple(TokenSet(torch.stack([start, encoded.embeddings[row]]), (1,)) for row in rows)
        return (TokenSet(encoded.embeddings, rows),)

    def noun(self, label: str) -> np.ndarray:
        """(E,) float32 mean embedding of the label's pieces inside the attribution prompt (A.1)."""
        encoded, rows = self._locate(label, None)
        return encoded.embeddings[list(rows)].mean(0).numpy()

    def background(self) -> np.ndarray:
        """(E,) float32 embedding of the start token, which a learned token's row 0 starts as (A.1)."""
        return self._text.encode("").embeddings[0].numpy().copy()

    def token(self, embedding: np.ndarray) -> ClassQuery:
        """Query for a learned embedding; its rows 1.. together are the class."""
        values = self._embedding(embedding)
        return (TokenSet(torch.from_numpy(values), tuple(range(1, len(values)))),)

    @property
    def input_size(self) -> int:
        """See :class:`backends.contract.ReadsInputVectors`."""
        return self._text.input_size

    def from_input_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """See :class:`backends.contract.ReadsInputVectors`.

        The vectors take the label's place in the attribution template, and their rows of the text encoder's output become the
        class's rows, one each: closer to what a word of several pieces draws than their mean is.
        """
        try:
            values = np.array(vectors, dtype=np.float32)
        except (TypeError, ValueError):
            raise BackendError("The input vectors are no array of numbers.") from None
        if values.ndim != 2 or len(values) < 1 or values.shape[1] != self.input_size:
            raise BackendError(
                f"The input vectors have shape {values.shape}; this model's text encoder takes (1 or more, {self.input_size})."
            )
        if not np.isfinite(values).all():
            raise BackendError("The input vectors contain NaN or infinite values.")
        before, after = self._attribution.template.split("{label}")
        encoded = self._text.encode_vectors(before, torch.from_numpy(values), after)
        place = len(clean(before)) + bool(clean(before))
        return encoded.embeddings[[0, *encoded.rows(place, place + 1)]].numpy()

    def knows(self, label: str) -> bool:
        """Whether the label is a word of the model's training; ``_`` and ``-`` count as spaces."""
        if self._known_words is None:
            return True
        plain = clean(label).lower()
        return plain in self._known_words or clean(plain.replace("_", " ").replace("-", " ")) in self._known_words

    def maps(self, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """Heat maps of all classes in one pass, on the CPU; see :meth:`backends.contract.Attributor.maps`."""
        maps = class_maps(self._bundle(capture), self._on_device(), queries)
        if holds_affinity(capture):
            maps = Affinity.from_tensors(capture.tensors, capture.info.layout).spread(maps)
        return maps.cpu()

    def logits(self, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """Logits of all classes over the background, on the CPU; see :meth:`backends.contract.LogitSource.logits`."""
        bundle, projections = self._bundle(capture), self._on_device()
        # Linear in the embedding, so that sets, columns and the background fold into one vector a class.
        directions = torch.stack(
            [torch.stack([s.embeddings[list(s.columns)].mean(0) - s.embeddings[0] for s in q]).mean(0) for q in queries]
        )
        return heat_maps(bundle, projections, directions, activation="linear").cpu()

    def regions(self, capture: Capture, regions: np.ndarray) -> np.ndarray:
        """What regions look like to the model; see :meth:`backends.contract.RegionSource.regions`."""
        return region_vectors(self._bundle(capture), regions)

    def learn(
        self,
        examples: Sequence[TokenExample],
        recipe: TokenRecipe,
        *,
        label: str,
        start: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> TokenFit:
        """Token optimization (Eq. 6-7); see :meth:`backends.contract.Attributor.learn`.

        Raises:
            BackendError: ``start`` is given without ``recipe.start == "given"`` or the other way round; no examples; an
                all-zero weight; no object pixel.
        """
        origin = self._start(recipe, label, start)
        return learn_token(
            [FitExample(self._bundle(e.capture), e.target, e.weight) for e in examples],
            self._on_device(),
            origin,
            recipe,
            loss_at=cast(Literal["target", "map"], self._attribution.loss_at),
            threshold=self._calibration.token_threshold,
            progress=progress,
        )

    def _start(self, recipe: TokenRecipe, label: str, start: np.ndarray | None) -> np.ndarray:
        """(recipe.tokens, E) where the optimisation begins."""
        if (recipe.start == "given") != (start is not None):
            raise BackendError("A start embedding must be passed exactly when the recipe's start is 'given'.")
        if start is not None:
            return self._embedding(start)
        noun = self.noun(label)
        if recipe.start == "thing_noun":
            noun = (noun + self.noun(self._attribution.thing)) / 2
        elif recipe.start != "noun":
            raise BackendError(f"The recipe's start is {recipe.start!r}; allowed are 'noun', 'thing_noun' and 'given'.")
        return initial_embedding(self.background(), noun, recipe.tokens, seed=recipe.seed)

    def _locate(self, label: str, prompt: str | None) -> tuple[EncodedText, tuple[int, ...]]:
        """The encoded attribution prompt and the rows of the label's pieces in it."""
        word = clean(label)
        if not word:
            raise BackendError("The label is empty; a class needs a name.")
        if prompt is None:
            before, after = clean(self._attribution.template).split("{label}")
            encoded = self._text.encode(before + word + after)
            spans = [(len(before), len(before) + len(word))]
        else:
            encoded = self._text.encode(prompt)
            spans = find_word(encoded.text, word)
        rows = sorted({row for span in spans for row in encoded.rows(*span)})
        if not spans:
            rows = list(encoded.own_rows())
        if not rows:
            raise BackendError(f"The tokenizer makes no token of {(prompt or label)!r}; give the class another name.")
        return encoded, tuple(rows)

    def _embedding(self, embedding: np.ndarray) -> np.ndarray:
        """A copy as (n >= 2, E) float32, finite."""
        try:
            values = np.array(embedding, dtype=np.float32)
        except (TypeError, ValueError):
            raise BackendError("The token embedding is no array of numbers.") from None
        if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] != self._size:
            raise BackendError(f"The token embedding has shape {values.shape}; (2 or more, {self._size}) is needed.")
        if not np.isfinite(values).all():
            raise BackendError("The token embedding contains NaN or infinite values; learn or import the token again.")
        return values

    def _bundle(self, capture: Capture) -> QueryBundle:
        bundle = QueryBundle.from_tensors(capture.tensors, capture.info.layout)
        return bundle if self._device == "cpu" else bundle.to(self._device)

    def _on_device(self) -> dict[str, KeyProjection]:
        """Projections on the device, moved once."""
        with self._lock:
            if self._moved is None:
                self._moved = {
                    name: KeyProjection(name, p.weight.to(self._device), p.heads, p.scale)
                    for name, p in self._projections.items()
                }
            return self._moved

    def describe(self) -> dict[str, Any]:
        """What shapes a word's query besides the model; recorded in the fingerprint's settings."""
        return {"template": self._attribution.template, "context": self._attribution.context}
