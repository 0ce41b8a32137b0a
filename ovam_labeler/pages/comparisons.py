"""Masks of one class on a corrected picture: by its word, by the version before, by this version, beside the human's."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from backends.attention.presence import presence_features
from backends.contract import Attributor, ClassQuery
from ovam_labeler.domain import Label, LoadedImage, Proposal
from ovam_labeler.drawing import overlay
from ovam_labeler.errors import ModelError, NotFoundError, OvamError
from ovam_labeler.options import project_options
from ovam_labeler.propose import decide, find_method, find_refiner, logits_of
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from ovam_labeler.vocabulary import Meaning
from token_store.contract import NotFoundError as NoSuchVersion
from token_store.entities import Correction, CorrectionMask, Scope, TokenVersion

#: Longer side of the pictures, in pixels; masks are made and measured at this size.
SIDE = 384

#: Seconds a page waits for a picture whose capture is gone and is read again; the reading goes on afterwards.
PATIENCE = 20.0

#: Comparisons kept in memory, some 60 kB each.
_KEPT = 128


@dataclass(frozen=True, slots=True)
class Tile:
    """One way to the class's mask.

    Attributes:
        show: ``word``, ``parent`` or ``version``.
        number: of the version; None for the word.
        iou: 0..1 with the human's mask, over the pixels it decides; None where the human said the class is not here.
        painted: share 0..1 of the picture that the mask covers.
        present: whether a mask is proposed at all; ``presence`` is the probability that decided it.
        sentence: why there is no picture; "" where there is one.
    """

    show: str
    number: int | None
    iou: float | None
    painted: float
    present: bool
    presence: float
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Attributes:
    positive: the human drew the class; else all its regions were deleted.
    learned_from: this version has seen the correction; its figure is no proof then.
    pictures: WebP by ``truth``, ``word``, ``parent``, ``version``.
    """

    positive: bool
    learned_from: bool
    size: tuple[int, int]
    tiles: tuple[Tile, ...]
    pictures: Mapping[str, bytes]


class Comparisons:
    """Makes comparisons and keeps the last ones.  Thread-safe; one is made at a time."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._kept: OrderedDict[tuple[object, ...], Comparison] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Lock()

    def of(self, scope: Scope, name: str, correction: Correction, version: TokenVersion | None) -> Comparison:
        """Compare on a correction's picture.

        Raises:
            NotFoundError: the correction says nothing of this class.
            FetchError, BadImageError, ModelError: the picture or the model cannot be had; says what to do.
        """
        store = self._application.store
        with translate_errors():
            masks = store.correction_masks([correction.id], name)
            options = store.get_project_options(correction.scope)
            parent = _parent(self._application, version)
        if not masks:
            raise NotFoundError(f"Correction {correction.id} has no decoded mask of '{name}' yet.")
        key = (correction.id, name, _sha(version), _sha(parent), masks[0].kind, repr(sorted(options.items())))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._making:
            made = self._make(name, correction, masks[0], version, parent, options)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def _make(
        self,
        name: str,
        correction: Correction,
        mask: CorrectionMask,
        version: TokenVersion | None,
        parent: TokenVersion | None,
        stored: Mapping[str, object],
    ) -> Comparison:
        application = self._application
        tool = str(correction.payload.get("tool", ""))
        if tool not in application.decoders:
            raise OvamError(f"Correction {correction.id} came from the tool {tool!r}, which is not installed.")
        options = project_options(application.settings, stored)
        method, refiner = find_method(options.method), find_refiner(options.refiner)
        attributor = application.backend().attributor
        image, prompt = application.decoders[tool].image_of(correction)
        with translate_errors():
            needs = method.needs(attributor)
            meanings, tiles = _meanings(attributor, name, version, parent)
            reading = application.inference.submit(image, needs, prompt=prompt)
            try:
                capture = reading.result(PATIENCE)
            except FutureTimeoutError:
                raise ModelError("The picture is being read by the base model; reload this page in a while.") from None
            small = LoadedImage(_shrunk(image.pixels), image.sha256)
            size = (small.height, small.width)
            found = []
            # Each on its own: here the ways compete with the human's mask, not with each other.
            for meaning in meanings.values():
                queries = [meaning.query]
                with torch.no_grad():
                    maps = method.maps(attributor, capture, queries).detach().float().cpu()
                    features = presence_features(
                        maps, logits_of(attributor, capture, queries) if needs.queries else None
                    )
                found += decide(small, maps, features, [meaning], attributor.calibration, options, refiner)
        truth, known = _resized(mask.mask, size), ~_resized(mask.ignore, size)
        positive = mask.kind == "positive"
        outline = truth if positive else None
        pictures = {"truth": _webp(overlay(small.pixels, outline, None, "truth"))}
        for show, proposal in zip(meanings, found, strict=True):
            pictures[show] = _webp(overlay(small.pixels, proposal.mask, outline))
            tiles[show] = _tile(show, tiles[show].number, proposal, truth if positive else None, known)
        seen = version is not None and correction.id in version.source_corrections
        return Comparison(positive, seen, size, tuple(tiles.values()), pictures)


def _meanings(
    attributor: Attributor, name: str, version: TokenVersion | None, parent: TokenVersion | None
) -> tuple[dict[str, Meaning], dict[str, Tile]]:
    """Queries by way, and a place for each way's figures; one that cannot be asked has its sentence there."""
    word: ClassQuery = attributor.words(name, None)
    meanings = {"word": Meaning(Label(name), word, "word")}
    tiles = {"word": Tile("word", None, None, 0.0, False, 0.0)}
    for show, found in (("parent", parent), ("version", version)):
        if found is None:
            continue
        sentence = ""
        if found.fingerprint.get("space") == attributor.fingerprint.space:
            meanings[show] = Meaning(Label(name), attributor.token(found.embedding), "token", found)
        else:
            sentence = (
                f"Version {found.number} was learned in another base model "
                f"({found.fingerprint.get('model') or 'unknown'}) and means nothing in this one."
            )
        tiles[show] = Tile(show, found.number, None, 0.0, False, 0.0, sentence)
    return meanings, tiles


def _tile(show: str, number: int | None, proposal: Proposal, truth: np.ndarray | None, known: np.ndarray) -> Tile:
    iou = None
    if truth is not None:
        union = ((proposal.mask | truth) & known).sum()
        iou = float((proposal.mask & truth & known).sum() / union) if union else 0.0
    return Tile(show, number, iou, float(proposal.mask.mean()), proposal.present, proposal.presence)


def _parent(application: Application, version: TokenVersion | None) -> TokenVersion | None:
    if version is None or version.parent_version is None:
        return None
    try:
        return application.store.get_version(version.scope, version.class_name, version.parent_version)
    except NoSuchVersion:  # deleted since
        return None


def _sha(version: TokenVersion | None) -> str:
    return version.sha256 if version is not None else ""


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another size by its nearest pixels."""
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(image) >= 128


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=82, method=4)
    return buffer.getvalue()
