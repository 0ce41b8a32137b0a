"""Reads a few images with a base model, checks its maps and fits against the plain formulas, times everything."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.attention.presets import PRESETS, preset_named
from backends.attention.queries import LayerQueries, QueryBundle
from backends.attention.queries import kept as stored_as
from backends.attention.spread import without_affinity
from backends.contract import (
    Attributor,
    Backend,
    Capture,
    ClassQuery,
    Needs,
    Progress,
    Reader,
    ReadRequest,
    TokenExample,
    TokenRecipe,
    capture_many,
)
from backends.diffusion.model_folder import looks_like_hub_name
from backends.discovery import load_backend
from ovam_labeler.errors import BadRequestError, ModelError
from ovam_labeler.reader_thread import available_cores
from ovam_labeler.translate import translate_errors
from ovam_labeler.verification.machine import machine, versions
from ovam_labeler.verification.pictures import Picture, own_images, shipped_scenes
from ovam_labeler.verification.plain import plain_map
from ovam_labeler.verification.results import Results, median_seconds, timed

#: Largest difference of a heat map from the plain formula on the same stored queries, as a part of the largest value.
MAP_ERROR = {"cpu": 1e-5, "other": 2e-3}
#: Most a map of ``exact`` storage may differ from lossless, as a part of the map's range.
EXACT_ERROR = 5e-4
#: Most the maps of an image read in a batch may differ from those of the image read alone, of the largest value.
BATCH_ERROR = 5e-3
#: Steps of the paper's generations.
PAPER_STEPS = 30
#: The paper's optimiser (A.1), of which a few epochs are run; and the rates at which it is tried. The paper's own is for Stable Diffusion:
#: where keys answer more strongly (the embedded model) its first step goes so far that sigmoids have no slope left, in exact numbers.
PAPER = TokenRecipe()
PAPER_RATES = (PAPER.learning_rate, PAPER.learning_rate / 10, PAPER.learning_rate / 100)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done.

    Attributes:
        steps: received images are read at so many evenly spread steps besides the model's own; 0 = only the model's own.
        epochs: of the paper's optimiser.
        generate: prompt of an image to generate; "" = none.
    """

    model: str
    device: str = "auto"
    scenes: int = 2
    images: tuple[Path, ...] = ()
    steps: int = 0
    epochs: int = 10
    generate: str = ""


class Verification:
    """One run over one base model."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if plan.device == "auto" else plan.device
        self.results = Results({})

    def run(self) -> Results:
        """
        Raises:
            ModelError: the model cannot be loaded; BadRequestError: another model family than Stable Diffusion's.
        """
        torch.set_num_threads(available_cores())
        pictures, labels = self._pictures()
        self._progress(0.02, "Loading the base model")
        with translate_errors(ModelError):
            backend, text_s = timed(self._device, lambda: load_backend(self._plan.model, device=self._device))
            reader, unet_s = timed(self._device, backend.reader)
        attributor = backend.attributor
        if not hasattr(attributor, "projections"):
            raise BadRequestError(f"The base model {backend.name!r} keeps no queries that Eq. 5 can be checked on.")
        results = self.results
        results.figures |= {
            "machine": machine(self._device),
            "versions": versions(),
            "model": self._model(backend),
            "load": {"text_and_keys_s": text_s, "unet_s": unet_s},
            "images": [],
            "fits": [],
        }
        queries = [attributor.words(label) for label in labels]
        with translate_errors():
            for number, picture in enumerate(pictures):
                self._progress(0.1 + 0.6 * number / len(pictures), f"Reading {picture.name}")
                self._image(picture, reader, attributor, queries)
            self._batch(pictures, reader, attributor, queries)
            for number, picture in enumerate(p for p in pictures if p.truth is not None):
                self._progress(0.75 + 0.15 * number / len(pictures), f"Fitting '{picture.label}'")
                self._fit(picture, reader, attributor)
            if self._plan.generate:
                self._progress(0.9, "Generating")
                self._generate(reader, attributor)
        results.figures["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self._device.startswith("cuda"):
            results.figures["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(self._device)
        self._progress(1.0, "Done")
        return results

    def _pictures(self) -> tuple[list[Picture], list[str]]:
        scenes, labels = shipped_scenes(self._plan.scenes) if self._plan.scenes else ([], [])
        labels = labels or ["cat", "dog", "car", "tree", "person", "house", "table", "bird", "boat", "sky"]
        return scenes + own_images(self._plan.images, labels), labels

    def _model(self, backend: Backend) -> dict[str, Any]:
        fingerprint = backend.attributor.fingerprint
        return {
            # A folder's name is the user's own; the fingerprint names the weights.
            "name": self._plan.model if _public(self._plan.model) else "a local folder",
            "backend": backend.name,
            "space": fingerprint.space,
            "embedding_size": backend.attributor.embedding_size,
            "layers": len(getattr(backend.attributor, "projections", {})),
            "reader_settings": dict(backend.reader_settings),
        }

    def _image(self, picture: Picture, reader: Reader, attributor: Attributor, queries: list[ClassQuery]) -> None:
        results, device = self.results, self._device
        needs = Needs(preset="lossless")
        before = reader.unet_passes
        capture, first_s = timed(device, lambda: reader.capture(picture.pixels, needs))
        passes = reader.unet_passes - before
        again, again_s = timed(device, lambda: reader.capture(picture.pixels, needs))
        steps = len(capture.info.timesteps)
        results.holds("one pass a step", passes == steps, f"{picture.name}: {passes} UNet passes at {steps} steps.")
        alike = all(torch.equal(capture.tensors[name], again.tensors[name]) for name in capture.tensors)
        results.holds("reading twice is equal", alike, f"{picture.name}: two readings are bit-identical.")
        figures: dict[str, Any] = {
            "name": picture.name,
            "sha256_of_pixels": picture.sha256,
            "size": list(picture.pixels.shape[:2]),
            "latent_size": list(capture.info.latent_size),
            "timesteps": list(capture.info.timesteps),
            "first_read_s": first_s,
            "read_s": again_s,
        }
        self._maps(picture, capture, attributor, queries, figures)
        if self._plan.steps:
            spread = tuple(int(s) for s in np.linspace(981, 1, self._plan.steps))
            many, many_s = timed(device, lambda: reader.capture(picture.pixels, replace(needs, timesteps=spread)))
            extra: dict[str, Any] = {"steps": len(spread), "read_s": many_s}
            self._maps(picture, many, attributor, queries, extra)
            figures["many_steps"] = extra
        results.figures["images"].append(figures)

    def _maps(
        self,
        picture: Picture,
        lossless: Capture,
        attributor: Attributor,
        queries: list[ClassQuery],
        into: dict[str, Any],
    ) -> None:
        """Every preset: bytes, error, agreement of masks; the engine against Eq. 5 on the very queries it reads."""
        results, projections = self.results, attributor.projections  # type: ignore[attr-defined]
        bundle = _computed(QueryBundle.from_tensors(lossless.tensors, lossless.info.layout))
        reference = attributor.maps(lossless, queries)
        scale, extent = float(reference.max()), float(reference.max() - reference.min())
        cut = attributor.calibration.word_threshold
        limit = MAP_ERROR["cpu" if self._device == "cpu" else "other"]
        size = (picture.pixels.shape[0], picture.pixels.shape[1])
        into["presets"] = {}
        for name in PRESETS:
            tensors, layout = stored_as(bundle, preset_named(name))
            tensors = {**lossless.tensors, **tensors}  # what spreads maps stays
            kept = Capture(replace(lossless.info, layout={**lossless.info.layout, **layout}), tensors)
            maps, formula = attributor.maps(kept, queries), attributor.maps(without_affinity(kept), queries[:4])
            own = QueryBundle.from_tensors(kept.tensors, kept.info.layout)
            plain = torch.stack([plain_map(own, projections, query).cpu() for query in queries[:4]])
            error = float((formula - plain).abs().max()) / scale
            results.at_most(
                f"maps equal the plain formula ({name})",
                error,
                limit,
                f"{picture.name}: {error:.1e} of the largest value.",
            )
            off = float((maps - reference).abs().max()) / extent
            # 8 bits are kept for many steps, whose rounding cancels; the bar is for the paper's thirty.
            if name == "exact" and (
                bundle.steps >= PAPER_STEPS or preset_named(name).dtype_of(bundle.steps) != torch.int8
            ):
                results.at_most("error of exact storage", off, EXACT_ERROR, f"{picture.name}: {off:.1e} of the range.")
            agreement = [_iou(a, b, cut, size) for a, b in zip(maps, reference, strict=True)]
            into["presets"][name] = {
                "bytes": kept.nbytes(),
                "largest_error_of_range": off,
                "mask_iou_mean": float(np.mean(agreement)),
                "mask_iou_worst": float(np.min(agreement)),
                "one_class_s": median_seconds(self._device, lambda kept=kept: attributor.maps(kept, queries[:1])),  # type: ignore[misc]
                "all_classes_s": median_seconds(self._device, lambda kept=kept: attributor.maps(kept, queries), 3),  # type: ignore[misc]
            }
        results.holds(
            "maps are attention",
            bool(torch.isfinite(reference).all()) and float(reference.min()) >= 0 and scale <= 1 + 1e-5 and extent > 0,
            f"{picture.name}: values in {float(reference.min()):.3g}..{scale:.3g}.",
        )
        single = torch.stack([attributor.maps(lossless, [query])[0] for query in queries])
        apart = float((single - reference).abs().max()) / scale
        results.at_most("classes do not touch each other", apart, limit, f"{picture.name}: {apart:.1e} one by one.")
        into |= {
            "classes": len(queries),
            "plain_class_by_class_s": median_seconds(
                self._device, lambda: [plain_map(bundle, projections, query) for query in queries], 1
            ),
        }

    def _batch(
        self, pictures: Sequence[Picture], reader: Reader, attributor: Attributor, queries: list[ClassQuery]
    ) -> None:
        """Two turns of one picture read together as each alone."""
        first = pictures[0].pixels
        both = [first, np.ascontiguousarray(first[:, ::-1])]
        requests = [ReadRequest(pixels) for pixels in both]
        together, seconds = timed(self._device, lambda: capture_many(reader, requests, Needs()))
        alone = [reader.capture(pixels, Needs()) for pixels in both]
        pairs = [
            (attributor.maps(a, queries[:4]), attributor.maps(b, queries[:4]))
            for a, b in zip(together, alone, strict=True)
        ]
        error = max(float((a - b).abs().max() / b.max()) for a, b in pairs)
        self.results.at_most("a batch reads as alone", error, BATCH_ERROR, f"{error:.1e} of the largest value.")
        self.results.figures["batch_of_two_s"] = seconds

    def _fit(self, picture: Picture, reader: Reader, attributor: Attributor) -> None:
        """A few epochs of the paper's SGD, and the product's own recipe to its end."""
        assert picture.truth is not None
        target = picture.truth.astype(np.float32)
        example = TokenExample(reader.capture(picture.pixels, Needs()), target, np.ones_like(target))
        for rate in PAPER_RATES:
            paper = replace(PAPER, epochs=self._plan.epochs, learning_rate=rate)
            slow, slow_s = timed(self._device, partial(attributor.learn, [example], paper, label=picture.label))
            if slow.losses[-1] < slow.losses[0]:
                break
        recipe = attributor.calibration.token_recipe
        attributor.learn([example], replace(recipe, epochs=1), label=picture.label)  # compiles what is compiled
        fast, fast_s = timed(self._device, lambda: attributor.learn([example], recipe, label=picture.label))
        word = _iou_with(attributor, example.capture, attributor.words(picture.label), "word", picture.truth)
        token = _iou_with(attributor, example.capture, attributor.token(fast.embedding), "token", picture.truth)
        results = self.results
        results.holds(
            "the paper's optimiser descends",
            slow.losses[-1] < slow.losses[0],
            f"{picture.name}: loss {slow.losses[0]:.4f} to {slow.losses[-1]:.4f} in {len(slow.losses)} epochs at a rate of {rate:g}.",
        )
        results.holds(
            "the fit descends",
            min(fast.losses) < fast.losses[0],
            f"{picture.name}: {fast.losses[0]:.4f} to {min(fast.losses):.4f}.",
        )
        results.holds(
            "the token is finite", bool(np.isfinite(fast.embedding).all()), f"{picture.name}: {fast.embedding.shape}."
        )
        results.figures["fits"].append(
            {
                "picture": picture.name,
                "paper": {
                    "epochs": len(slow.losses),
                    "seconds_an_epoch": slow_s / len(slow.losses),
                    "losses": list(slow.losses),
                    "learning_rate": rate,
                },
                "product": {
                    "optimizer": recipe.optimizer,
                    "seconds": fast_s,
                    "passes": len(fast.losses),
                    "losses": list(fast.losses),
                    "norm_of_delta": float(np.linalg.norm(fast.embedding[1] - fast.embedding[0])),
                },
                "train_iou": {"word": word, "token": token},
            }
        )

    def _generate(self, reader: Reader, attributor: Attributor) -> None:
        prompt = self._plan.generate
        needs, nothing = Needs(), Needs(queries=False)
        bare, bare_s = timed(self._device, lambda: reader.generate(prompt, nothing, seed=1))
        made, made_s = timed(self._device, lambda: reader.generate(prompt, needs, seed=1))
        passes = reader.unet_passes
        attributor.maps(made.capture, [attributor.words("cat")])
        results = self.results
        results.holds(
            "capturing leaves the image as it is",
            bool(np.array_equal(bare.image, made.image)),
            "The image is the same bit for bit with and without its queries recorded.",
        )
        results.holds(
            "a generated image is not read again", reader.unet_passes == passes, "Maps came from its own queries."
        )
        results.figures["generation"] = {
            "size": list(made.image.shape[:2]),
            "steps": made.capture.info.steps,
            "without_capture_s": bare_s,
            "with_capture_s": made_s,
            "bytes": made.capture.nbytes(),
        }


def _computed(bundle: QueryBundle) -> QueryBundle:
    """The same queries as a model computes them, so that a preset can store them anew."""
    layers = [LayerQueries(y.name, y.heads, y.height, y.width, y.scale, y.plain()) for y in bundle.layers]
    return QueryBundle(tuple(layers))


def _public(model: str) -> bool:
    """The embedded model, or a hub name that is no folder here."""
    return model == "embedded" or (looks_like_hub_name(model) and not Path(model).exists())


def _iou(one: torch.Tensor, other: torch.Tensor, cut: float, size: tuple[int, int]) -> float:
    a, b = relative_map(one, size) >= cut, relative_map(other, size) >= cut
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def _iou_with(attributor: Attributor, capture: Capture, query: ClassQuery, source: str, truth: np.ndarray) -> float:
    calibration = attributor.calibration
    cut = calibration.token_threshold if source == "token" else calibration.word_threshold
    mask = relative_map(attributor.maps(capture, [query])[0], (truth.shape[0], truth.shape[1])) >= cut
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))
