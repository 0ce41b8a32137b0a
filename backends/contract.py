"""Contracts of the ``backends`` room: what a base model must offer, and the plain data that crosses.

Two things are kept apart on purpose.  A *reader* runs the diffusion model (UNet) once per image and returns a
:class:`Capture`.  An *attributor* turns a capture and text (or learned) embeddings into attention maps; it needs
only the text encoder and the key projections, so a process without the UNet or a GPU can answer from cached captures.

Nothing here imports diffusers, and nothing in this room imports ``ovam_labeler`` or ``token_store``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

#: How queries are kept unless a setting says otherwise; see ``backends.attention.presets``.
DEFAULT_PRESET = "exact"

#: Called with a fraction in 0..1 and one short sentence.  May raise to cancel; the exception passes through.
Progress = Callable[[float, str], None]


class BackendError(Exception):
    """A base model, method or refiner cannot do what was asked.  The message is one sentence for the user."""


class PromptTooLongError(BackendError):
    """An attribution or image prompt exceeds the text encoder's length.  It is refused, never cut."""


class FingerprintMismatchError(BackendError):
    """A learned token belongs to another embedding space than the attributor's."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identity of an embedding space.

    ``space`` is a SHA-256 (hex) over the *content* of the text encoder's weights, the tokenizer's vocabulary and all
    ``to_k`` weights the attributor uses; never a path or a name.  A token is refused where ``space`` differs.
    ``settings`` (steps, scheduler, layers, size, CFG half, read mode, preset) are recorded; a difference is reported
    by :meth:`differences` and warned of, not refused.  ``parts`` names the space's parts by their own SHA-256
    (``text encoder``, ``tokenizer``, ``key projections``), so that a refusal can say which of them differs.
    """

    space: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def differences(self, other: Fingerprint) -> dict[str, tuple[Any, Any]]:
        """Settings in which the two differ: name -> (mine, other's)."""
        names = sorted(set(self.settings) | set(other.settings))
        return {
            n: (self.settings.get(n), other.settings.get(n))
            for n in names
            if self.settings.get(n) != other.settings.get(n)
        }


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method reads from a diffusion pass.  Part of every cache key (:meth:`key`).

    A reader that cannot meet a need says so (:class:`BackendError`); it never leaves one out silently.

    Attributes:
        queries: pixel queries of the down and up blocks' cross-attention layers (Eq. 3-5).
        self_attention: latent down-sampling factors (1 = the latent grid itself, 2, 4, ...) at which the
            self-attention a pixel *receives* (Eq. 8) is kept; empty for none.
        timesteps: the step schedule: training timesteps (0..999) at which a *received* image is read; ``None`` = the
            reader's default.  A generated image is recorded at the steps of its making.
        features: latent down-sampling factors at which the hidden states leaving the up blocks are kept, each step;
            empty for none.
        latents: keep the image's noiseless latents, scaled as the UNet was trained.
        preset: how queries are kept, by name.  No method asks for one: the application sets it from its settings, so that
            a capture gives the same maps from memory and from the cache.
    """

    queries: bool = True
    self_attention: tuple[int, ...] = ()
    timesteps: tuple[int, ...] | None = None
    features: tuple[int, ...] = ()
    latents: bool = False
    preset: str = DEFAULT_PRESET

    def key(self) -> str:
        """Canonical text of these needs, stable across processes and versions.

        Needs added to this class later appear only where they are asked for, so that older keys stay what they were.
        """
        steps = "default" if self.timesteps is None else ",".join(map(str, self.timesteps))
        parts = [
            f"queries={int(self.queries)}",
            f"self_attention={_listed(self.self_attention)}",
            f"timesteps={steps}",
            f"preset={self.preset}",
        ]
        if self.features:
            parts.append(f"features={_listed(self.features)}")
        if self.latents:
            parts.append("latents=1")
        return ";".join(parts)


def _listed(factors: Sequence[int]) -> str:
    return ",".join(map(str, sorted(set(factors))))


@dataclass(frozen=True, slots=True)
class CaptureInfo:
    """Where a capture comes from.  JSON-serialisable; stored beside the tensors.

    Attributes:
        origin: ``"generated"`` or ``"received"``.
        image_size: (height, width) of the upright image in pixels.
        latent_size: (height, width) of the latent grid; not assumed square anywhere.
        timesteps: the training timesteps recorded, in recording order.
        cfg_half: ``"conditional"`` or ``"unconditional"``: which half of a guided batch was kept.
        prompt, negative_prompt, seed, guidance, scheduler, steps: what is needed to make a generated image again exactly.
        layout: the backend's own description of the tensors (layer names, heads, sizes, scales, ...).
    """

    origin: str
    image_size: tuple[int, int]
    latent_size: tuple[int, int]
    timesteps: tuple[int, ...]
    cfg_half: str = "conditional"
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    guidance: float | None = None
    scheduler: str = ""
    steps: int | None = None
    model: str = ""
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capture:
    """Recorded tensors of one image.  Which tensors is the backend's own business, named in ``info.layout``.

    A tensor's name begins with the need it serves (``queries``, ``self_attention``, ``features``, ``latents``), up to
    the first dot.  The owner of the capture may move or free the tensors; nobody writes into them.
    """

    info: CaptureInfo
    tensors: Mapping[str, torch.Tensor]

    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def bytes_by_need(self) -> dict[str, int]:
        """Bytes of each need's tensors."""
        found: dict[str, int] = {}
        for name, tensor in self.tensors.items():
            need = need_of(name)
            found[need] = found.get(need, 0) + tensor.numel() * tensor.element_size()
        return found


def need_of(tensor_name: str) -> str:
    """The need a capture's tensor serves: its name up to the first dot."""
    return tensor_name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Generated:
    """An image made by a reader with its capture.  ``image`` is uint8 (height, width, 3), sRGB."""

    image: np.ndarray
    capture: Capture


@dataclass(frozen=True, slots=True)
class TokenSet:
    """One X' of Eq. 5: the tokens that compete in one softmax, and which of them stand for the class.

    Attributes:
        embeddings: (n, E) float32, n >= 2; row 0 is the start or background token in all built-in backends.
        columns: indices of the rows whose maps are averaged into the class map.
    """

    embeddings: torch.Tensor
    columns: tuple[int, ...]


#: A class as the attributor is asked for it: the class map is the mean over the sets' maps.
ClassQuery = tuple[TokenSet, ...]


@dataclass(frozen=True, slots=True)
class TokenRecipe:
    """How a token is optimised (Eq. 6-7).  Every field is stored with the token version.

    Attributes:
        optimizer: ``"sgd"`` (the paper's A.1), ``"adam"`` or ``"lbfgs"``.
        epochs: passes at most.
        learning_rate, decay_every, decay: step size and its schedule (x ``decay`` each ``decay_every`` epochs).
        ridge: weight of ``|token - start|^2`` keeping the token near its start; 0 = none.
        start: ``"noun"`` (mean embedding of the class word), ``"thing_noun"`` (half-way between the backend's word for
            any object and the class word) or ``"given"`` (an embedding passed in).
        tokens: rows of the learned embedding, >= 2; row 0 is the background token.
        balance: weigh object and background pixels equally in the loss.
        seed: for whatever is random in the optimiser.
    """

    optimizer: str = "sgd"
    epochs: int = 500
    learning_rate: float = 100.0
    decay_every: int = 120
    decay: float = 0.7
    ridge: float = 0.0
    start: str = "noun"
    tokens: int = 2
    balance: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenExample:
    """One annotated image for token optimization.

    Attributes:
        capture: of the annotated image.
        target: (H, W) float32 in 0..1 at any resolution: 1 = the class.
        weight: (H, W) float32 >= 0, same shape: 0 = ignored pixels (border ring, unknown).  An all-zero weight raises.
    """

    capture: Capture
    target: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, slots=True)
class TokenFit:
    """Result of a token optimization.

    Attributes:
        embedding: (tokens, E) float32 numpy, the best seen (not the last), row 0 = background.
        losses: loss of each epoch, in order.
        best_epoch: index into ``losses``.
        train_iou: IoU 0..1 of the fitted map, thresholded as the backend's default says, with the target.
        held_out_iou: the same on examples that were held out, where there were any.
        ridge: weight that was used, chosen on the held-out examples where several were offered.
        passes: pairs of passes (forward and back) over all queries; those over a part of the steps count as that part.
        reason: why it ended: ``"converged"``, ``"target"``, ``"passes"`` or ``"deadline"``.
    """

    embedding: np.ndarray
    losses: tuple[float, ...]
    best_epoch: int
    train_iou: float
    held_out_iou: float | None = None
    ridge: float = 0.0
    passes: float = 0.0
    reason: str = "passes"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A backend's measured defaults for turning maps into decisions.  All values 0..1 unless said otherwise.

    Attributes:
        word_threshold, token_threshold: Eq. 9's tau, relative to the maximum after min-max.
        word_presence, token_presence: logistic weights by feature name (see ``attention.presence``), with ``"bias"``.
        presence_cut: present where the probability is at least this.
        word_recipe, token_recipe: how a known word's token, and a new class's token, are learned.
    """

    word_threshold: float
    token_threshold: float
    word_presence: Mapping[str, float]
    token_presence: Mapping[str, float]
    presence_cut: float
    word_recipe: TokenRecipe
    token_recipe: TokenRecipe


@runtime_checkable
class Reader(Protocol):
    """Runs the diffusion model.  Not thread-safe: the caller serialises calls (``inference`` does)."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What shapes a capture besides the image and the needs; part of the cache key, JSON-serialisable."""

    @property
    def unet_passes(self) -> int:
        """UNet forward passes since construction; tests count with it."""

    def capture(
        self, image: np.ndarray, needs: Needs, *, prompt: str = "", seed: int = 0, progress: Progress | None = None
    ) -> Capture:
        """Read a received image: VAE-encode, add noise at the chosen steps, one UNet pass a step.

        Args:
            image: uint8 (height, width, 3), upright sRGB, any size and aspect.
            prompt: conditions the pass when there is one (task data's ``prompt``).
            seed: of the added noise; equal inputs give equal captures.

        Raises:
            PromptTooLongError: the prompt exceeds the text encoder's length.
            BackendError: the image is too small or the needs cannot be met.
        """

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
        """Generate an image ((height, width) ``size``) and record it on the way, conditional half."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One image of a batch; the fields are :meth:`Reader.capture`'s."""

    image: np.ndarray
    prompt: str = ""
    seed: int = 0


@runtime_checkable
class BatchReader(Protocol):
    """What a :class:`Reader` may offer besides: several received images in fewer UNet passes."""

    def capture_many(
        self, requests: Sequence[ReadRequest], needs: Needs, *, progress: Progress | None = None
    ) -> list[Capture]:
        """Captures in the order of ``requests``, each as :meth:`Reader.capture` would give it but for rounding.

        The reader bounds its batches itself and groups images that fit together.

        Raises:
            PromptTooLongError, BackendError: one of the requests cannot be met; the caller then reads one by one.
        """


def capture_many(
    reader: Reader, requests: Sequence[ReadRequest], needs: Needs, *, progress: Progress | None = None
) -> list[Capture]:
    """Captures of several images: in batches where the reader offers it, else one by one."""
    if len(requests) > 1 and isinstance(reader, BatchReader):
        return reader.capture_many(requests, needs, progress=progress)
    return [reader.capture(r.image, needs, prompt=r.prompt, seed=r.seed, progress=progress) for r in requests]


@runtime_checkable
class Attributor(Protocol):
    """Turns captures and embeddings into maps.  Thread-safe; holds text encoder and key projections only."""

    @property
    def fingerprint(self) -> Fingerprint: ...

    @property
    def calibration(self) -> Calibration: ...

    @property
    def embedding_size(self) -> int:
        """E, the width of a token embedding."""

    def words(self, label: str, prompt: str | None = None) -> ClassQuery:
        """Query for a class word.

        Args:
            label: the class noun; any text, several words and unknown words allowed.
            prompt: attribution prompt containing ``label`` (e.g. ``"A photograph of a cat"``); ``None`` = the backend's
                template.  If it does not contain the label, the whole prompt's own words are the class.

        Raises:
            PromptTooLongError: prompt longer than the text encoder takes.
            BackendError: the label is empty.
        """

    def noun(self, label: str) -> np.ndarray:
        """(E,) float32: mean embedding of the label's pieces; a token's start (Eq. 6)."""

    def token(self, embedding: np.ndarray) -> ClassQuery:
        """Query for a learned embedding (n, E), row 0 background.

        Raises:
            BackendError: wrong shape, or NaN or infinite values.
        """

    def knows(self, label: str) -> bool:
        """Whether the backend was trained with this word (a known word's token starts at the word under a ridge)."""

    def maps(self, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """Heat maps of all classes in one pass (Eq. 5): (classes, height, width) float32 in 0..1.

        Mean, not sum, over steps, heads and layers; at the capture's largest layer resolution, non-square allowed.
        Differentiable with respect to the embeddings.
        """

    def learn(
        self,
        examples: Sequence[TokenExample],
        recipe: TokenRecipe,
        *,
        label: str,
        start: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> TokenFit:
        """Token optimization on one or several images (Eq. 6-7); queries stay frozen."""


@runtime_checkable
class LogitSource(Protocol):
    """What an :class:`Attributor` may offer besides: Eq. 5 without its softmax.  Sharpens the presence decision."""

    def logits(self, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """Each class's logit over the background's (row 0), (classes, height, width) float32, any real number.

        Mean over steps, heads, layers, the class's columns and its token sets.
        """


@runtime_checkable
class RegionSource(Protocol):
    """What an :class:`Attributor` may offer besides: how alike two regions look to the model, in one picture or in two.  Sharpens the
    judgement of whether corrections of a class show the same thing."""

    def regions(self, capture: Capture, regions: np.ndarray) -> np.ndarray:
        """(n, D) float32 of length 1 (or 0 where a region is empty or everything); the product of two is their likeness, -1..1.

        Args:
            regions: (n, height, width), share of each pixel that is in the region, 0..1; any size.

        Raises:
            BackendError: the regions have another shape, or values that are not in 0..1.
        """


@runtime_checkable
class ReadsInputVectors(Protocol):
    """What an attributor may offer besides: tokens made of vectors in the text encoder's *input* space.

    That is where textual inversion learns (arXiv 2208.01618).  Tokens of this program live in the encoder's *output*
    space, so such vectors have to go through the encoder, inside a prompt.
    """

    @property
    def input_size(self) -> int:
        """Width of an input embedding."""

    def from_input_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """A token embedding (1 + k, E) float32, row 0 background, of (k, input_size) vectors.

        Raises:
            BackendError: wrong shape, NaN or infinite values.
            PromptTooLongError: more vectors than the text encoder takes.
        """


@dataclass(frozen=True, slots=True)
class Backend:
    """A base model ready for use.  ``reader`` is a factory: the UNet is loaded at its first call only."""

    name: str
    attributor: Attributor
    reader: Callable[[], Reader]
    reader_settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """What an entry point of group ``ovam_labeler.backends`` resolves to.

    Attributes:
        name: how ``OVAM_BACKEND`` names it.
        description: one line for ``doctor``.
        accepts: whether this backend can load ``model`` (a folder, a hub name, or ``"embedded"``).
        load: ``load(model, device, progress) -> Backend``; raises :class:`BackendError` with what to do.
        api_version: of this contract; see :data:`API_VERSION`.
    """

    name: str
    description: str
    accepts: Callable[[str], bool]
    load: Callable[..., Backend]
    api_version: int = 1


@runtime_checkable
class MaskMethod(Protocol):
    """Entry point group ``ovam_labeler.methods``: capture x queries -> class maps, before presence and threshold."""

    name: str

    def needs(self, attributor: Attributor) -> Needs: ...

    def maps(self, attributor: Attributor, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """(classes, height, width) float32 in 0..1.

        A class's map does not hang on which others are asked for with it: maps are kept one by one, and only those of a
        changed token are made again.
        """


@runtime_checkable
class Refiner(Protocol):
    """Entry point group ``ovam_labeler.refiners``: sharpen a soft map along the image's edges."""

    name: str

    def refine(self, image: np.ndarray, soft: np.ndarray) -> np.ndarray:
        """Args: image uint8 (H, W, 3); soft float32 (H, W) in 0..1.  Returns float32 (H, W) in 0..1."""


#: Version of these contracts; a plugin built for another major version is listed as broken.
API_VERSION = 1
