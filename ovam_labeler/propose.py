"""Image + labels -> one mask proposal a label: capture, maps, presence, Eq. 9, refiner, overlap."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from backends import discovery
from backends.attention.binarize import MaskPainter, recentre, relative_map
from backends.attention.presence import presence_features, presence_probability
from backends.contract import (
    Attributor,
    Backend,
    Calibration,
    Capture,
    ClassQuery,
    LogitSource,
    MaskMethod,
    Needs,
    Progress,
    Refiner,
)
from backends.discovery import Found
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions, Proposal
from ovam_labeler.errors import BadRequestError, ModelError
from ovam_labeler.inference import InferenceService
from ovam_labeler.map_memory import ClassMap, MapMemory
from ovam_labeler.model_version import model_version
from ovam_labeler.settings import Settings
from ovam_labeler.tiling import cut, parts_of, together
from ovam_labeler.translate import translate_errors
from ovam_labeler.vocabulary import Meaning, Vocabulary
from token_store.entities import Scope

log = logging.getLogger(__name__)

NO_REFINER = "none"

#: Part of the progress bar that reading takes; the maps are quick.
_READING = 0.9

#: Masks are made on at most this many pixels and enlarged from there: maps are far coarser, and memory is bounded.
_WORK_PIXELS = 1 << 22

T = TypeVar("T")


class ProposeService:
    """Implements :class:`ovam_labeler.services.Proposer`.  Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        backend: Callable[[], Backend],
        inference: InferenceService,
        vocabulary: Vocabulary,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._inference = inference
        self._vocabulary = vocabulary
        self._memory = MapMemory()

    def propose(
        self,
        image: LoadedImage,
        labels: Sequence[Label],
        scope: Scope,
        options: ProjectOptions,
        *,
        prompt: str = "",
        progress: Progress | None = None,
    ) -> list[Proposal]:
        """See :meth:`ovam_labeler.services.Proposer.propose`.

        Raises:
            BadRequestError: an empty or over-long label or prompt, an unknown method or refiner, a threshold outside 0..1.
            ModelError: the base model or a plugin cannot be loaded.
        """
        if not labels:
            return []
        method, refiner = find_method(options.method), find_refiner(options.refiner)
        backend = self._backend()
        asked = list(dict.fromkeys(labels))
        meanings = [m for m in self._vocabulary.meanings(asked, scope, words=options.words) if m is not None]
        proposals: dict[Label, Proposal] = {}
        if meanings:
            with translate_errors():
                needs = method.needs(backend.attributor)
            reading = None if progress is None else _part(progress, 0.0, _READING)
            read = _Reading(self._inference, backend.attributor, method, needs, meanings, prompt, self._memory)
            maps, features = read.whole(image, options.tiles, reading)
            with translate_errors():
                found = decide(image, maps, features, meanings, backend.attributor.calibration, options, refiner)
            proposals = {m.label: p for m, p in zip(meanings, found, strict=True)}
        if progress is not None:
            progress(1.0, "Proposed masks")
        return [proposals.get(label) or _unasked(label, image) for label in labels]

    def model_version(self, labels: Sequence[Label], scope: Scope, options: ProjectOptions) -> str:
        """See :meth:`ovam_labeler.services.Proposer.model_version`."""
        return model_version(self._settings, labels, self._vocabulary.active(labels, scope), options)


class _Reading:
    """Maps and presence features of one picture's labels, read whole or also in parts."""

    def __init__(
        self,
        inference: InferenceService,
        attributor: Attributor,
        method: MaskMethod,
        needs: Needs,
        meanings: Sequence[Meaning],
        prompt: str,
        memory: MapMemory,
    ) -> None:
        self._inference, self._attributor, self._method = inference, attributor, method
        self._needs, self._meanings, self._prompt, self._memory = needs, meanings, prompt, memory

    def whole(
        self, image: LoadedImage, tiles: int, progress: Progress | None
    ) -> tuple[torch.Tensor, Sequence[Mapping[str, float]]]:
        """Maps (classes, h, w) float32 and features of each class; of the part where it is most probable, where there are parts."""
        parts = parts_of(image.height, image.width, tiles)
        share = 1.0 / (1 + len(parts))
        maps, features = self._read(image, None if progress is None else _part(progress, 0.0, share))
        if not parts:
            return maps, features
        heats, weights = [], []
        best, most = list(features), self._probable(features)
        for number, part in enumerate(parts, start=1):
            report = None if progress is None else _part(progress, number * share, (number + 1) * share)
            heat, found = self._read(cut(image, part), report)
            heats.append(heat)
            weights.append(self._probable(found))
            for k, probability in enumerate(weights[-1]):
                if probability > most[k]:
                    best[k], most[k] = found[k], probability
        return together(image.height, image.width, parts, heats, weights), best

    def _read(
        self, image: LoadedImage, progress: Progress | None
    ) -> tuple[torch.Tensor, Sequence[Mapping[str, float]]]:
        """Presence compares the labels with each other, so features are made anew of maps that are kept one by one."""

        def make(places: list[int]) -> list[ClassMap]:
            capture = self._inference.submit(image, self._needs, prompt=self._prompt, progress=progress).result()
            with translate_errors():
                queries = [self._meanings[place].query for place in places]
                maps = self._method.maps(self._attributor, capture, queries).detach().float().cpu()
                logits = logits_of(self._attributor, capture, queries) if self._needs.queries else None
            bare = [None] * len(places) if logits is None else [x.clone() for x in logits.detach().float().cpu()]
            return [ClassMap(heat.clone(), own) for heat, own in zip(maps, bare, strict=True)]

        where = (image.sha256, self._prompt, self._needs.key(), self._method.name)
        found = self._memory.get([(where, meaning.identity) for meaning in self._meanings], make)
        maps = torch.stack([one.heat for one in found])
        logits = [one.logits for one in found if one.logits is not None]
        with translate_errors():
            return maps, presence_features(maps, torch.stack(logits) if len(logits) == len(found) else None)

    def _probable(self, features: Sequence[Mapping[str, float]]) -> list[float]:
        calibration = self._attributor.calibration
        return [presence_of(f, m.source, calibration) for f, m in zip(features, self._meanings, strict=True)]


def presence_of(features: Mapping[str, float], source: str, calibration: Calibration) -> float:
    """Probability 0..1 that a class is in the picture, asked for by a learned token or a word."""
    weights = calibration.token_presence if source == "token" else calibration.word_presence
    return presence_probability(features, weights)


def decide(
    image: LoadedImage,
    maps: torch.Tensor,
    features: Sequence[Mapping[str, float]],
    meanings: Sequence[Meaning],
    calibration: Calibration,
    options: ProjectOptions,
    refiner: Refiner | None,
) -> list[Proposal]:
    """From heat maps to proposals, in order.

    Args:
        maps: (classes, h, w) float32 in 0..1, one for each meaning.
        features: of :func:`backends.attention.presence.presence_features`, one for each meaning.
    """
    probabilities = [presence_of(f, m.source, calibration) for f, m in zip(features, meanings, strict=True)]
    judged = [not options.presence or p >= calibration.presence_cut for p in probabilities]
    thresholds = [
        options.threshold if options.threshold is not None else threshold_of(calibration, m.source) for m in meanings
    ]
    size = (image.height, image.width)
    pixels = _bounded(image.pixels)
    present = [k for k, there in enumerate(judged) if there]
    # One class after the other: the soft maps of twenty classes of a large image would take a gigabyte.
    painter = MaskPainter(options.overlap)
    for k in present:
        soft, cut = relative_map(maps[k], pixels.shape[:2]), thresholds[k]
        if refiner is not None:
            # Refiners read a probability: the threshold is bent to one half before, and is one half afterwards.
            soft, cut = _refined(refiner, pixels, recentre(soft, cut)), 0.5
        painter.add(soft, cut, max(probabilities[k], 1e-3) if options.presence else 1.0)
    margins = painter.margins()
    place = {k: index for index, k in enumerate(present)}
    proposals = []
    for k, meaning in enumerate(meanings):
        mask = painter.mask(place[k]) if k in place else None
        there = mask is not None and bool(mask.any())
        presence = probabilities[k] if options.presence else 1.0
        # Sure of a mask: the class is there and the map is decided inside it.  Sure of none: the class is not there.
        # Other rules were measured beside this one by :mod:`ovam_labeler.evaluation.score`.
        score = presence * (0.5 + 0.5 * margins[place[k]]) if there else 1.0 - probabilities[k]
        proposals.append(
            Proposal(
                label=meaning.label.name,
                mask=_enlarged(mask, size) if mask is not None else np.zeros(size, dtype=bool),
                soft=maps[k].numpy(),
                score=float(np.clip(score, 0.0, 1.0)),
                present=there,
                presence=presence,
                source=meaning.source,
                token_version=meaning.version.number if meaning.version is not None else None,
                version_id=meaning.version.id if meaning.version is not None else None,
            )
        )
    return proposals


def logits_of(attributor: Attributor, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor | None:
    """Logits for the presence decision, where the backend offers them."""
    return attributor.logits(capture, queries) if isinstance(attributor, LogitSource) else None


def threshold_of(calibration: Calibration, source: str) -> float:
    """Eq. 9's tau for a learned token or a word."""
    return calibration.token_threshold if source == "token" else calibration.word_threshold


def find_method(name: str) -> MaskMethod:
    """A mask method by name.  Raises BadRequestError (unknown) or ModelError (broken plugin)."""
    return _plugin("method", name, discovery.methods())


def find_refiner(name: str) -> Refiner | None:
    """A refiner by name; None for ``"none"``.  Raises BadRequestError (unknown) or ModelError (broken plugin)."""
    return None if name == NO_REFINER else _plugin("refiner", name, discovery.refiners(), NO_REFINER)


def _plugin(kind: str, name: str, found: Mapping[str, Found[T]], *others: str) -> T:
    if name not in found:
        known = ", ".join([*others, *found]) or "none"
        raise BadRequestError(f"The {kind} {name!r} is not installed; installed are {known}.")
    with translate_errors(ModelError):
        return found[name].get()


def _refined(refiner: Refiner, pixels: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """The refiner's map, checked: a stranger's plugin must not break the page."""
    refined = np.asarray(refiner.refine(pixels, soft), dtype=np.float32)
    if refined.shape != soft.shape or not np.isfinite(refined).all():
        log.warning("The refiner %r gave an unusable map and was left out.", refiner.name)
        return soft
    return refined.clip(0, 1)


def _bounded(pixels: np.ndarray) -> np.ndarray:
    """The image on at most :data:`_WORK_PIXELS` pixels, by taking every n-th."""
    step = int(np.ceil(np.sqrt(pixels.shape[0] * pixels.shape[1] / _WORK_PIXELS)))
    return pixels if step <= 1 else np.ascontiguousarray(pixels[step // 2 :: step, step // 2 :: step])


def _enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask brought to the image's size by its nearest pixels."""
    if mask.shape == size:
        return mask
    rows = np.arange(size[0]) * mask.shape[0] // size[0]
    columns = np.arange(size[1]) * mask.shape[1] // size[1]
    return mask[rows[:, None], columns]


def _unasked(label: Label, image: LoadedImage) -> Proposal:
    """A label without a token where words are switched off: nothing is proposed, and nothing was judged."""
    nothing = np.zeros((image.height, image.width), dtype=bool)
    return Proposal(label.name, nothing, np.zeros((1, 1), np.float32), 0.0, False, 0.0, "word")


def _part(progress: Progress, start: float, end: float) -> Progress:
    """A callback whose 0..1 is a part of another's."""
    return lambda fraction, message: progress(start + (end - start) * fraction, message)
