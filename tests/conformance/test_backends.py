"""One body of tests for every backend that is found, a stranger's plugin included: what the contract promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from backends import discovery
from backends.contract import (
    Attributor,
    Backend,
    BackendError,
    Capture,
    Needs,
    PromptTooLongError,
    Reader,
    ReadRequest,
    RegionSource,
    TokenExample,
    TokenRecipe,
    TokenSet,
    capture_many,
)

#: Backends of this suite; a test below fails when one is found that is not among them.
NAMES = ["embedded", "stable-diffusion", "colour"]
LONG = "red " * 200


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest, installed: Callable[[str], None], random_folder: Path) -> Iterator[Backend]:
    installed("colour_backend")
    models = {"embedded": "embedded", "stable-diffusion": str(random_folder), "colour": "colours/basic"}
    yield discovery.load_backend(models[request.param])


@pytest.fixture()
def image() -> np.ndarray:
    """48 x 96: a red square on noise."""
    made = np.random.default_rng(0).integers(0, 120, (48, 96, 3)).astype(np.uint8)
    made[10:34, 30:54] = (240, 20, 20)
    return made


@pytest.fixture()
def capture(backend: Backend, image: np.ndarray) -> Capture:
    return backend.reader().capture(image, Needs())


@pytest.fixture()
def example(capture: Capture) -> TokenExample:
    target = np.zeros((48, 96), np.float32)
    target[10:34, 30:54] = 1
    return TokenExample(capture, target, np.ones((48, 96), np.float32))


def test_every_backend_found_is_in_this_suite(installed: Callable[[str], None]) -> None:
    installed("colour_backend")
    assert set(discovery.backends()) <= set(NAMES)


def test_parts_are_what_the_contract_names(backend: Backend) -> None:
    assert isinstance(backend.attributor, Attributor)
    reader = backend.reader()
    assert isinstance(reader, Reader) and backend.reader() is reader
    assert json.loads(json.dumps(dict(backend.reader_settings))) == dict(backend.reader_settings)
    assert dict(reader.settings) == dict(backend.reader_settings)
    assert discovery.backends()[backend.name].get().name == backend.name


def test_identity(backend: Backend) -> None:
    fingerprint = backend.attributor.fingerprint
    assert len(fingerprint.space) == 64 and int(fingerprint.space, 16) >= 0
    assert json.dumps(dict(fingerprint.settings))
    assert fingerprint.differences(fingerprint) == {}
    assert backend.attributor.fingerprint == fingerprint


def test_calibration_is_complete(backend: Backend) -> None:
    calibration = backend.attributor.calibration
    assert all(0 <= v <= 1 for v in (calibration.word_threshold, calibration.token_threshold, calibration.presence_cut))
    assert calibration.word_presence and calibration.token_presence
    assert all(np.isfinite(list(w.values())).all() for w in (calibration.word_presence, calibration.token_presence))


def test_capture(backend: Backend, image: np.ndarray) -> None:
    reader = backend.reader()
    before = reader.unet_passes
    capture = reader.capture(image, Needs(), seed=3)
    assert reader.unet_passes > before
    assert capture.info.origin == "received" and capture.info.image_size == (48, 96) and capture.info.seed == 3
    assert capture.info.timesteps
    again = reader.capture(image, Needs(), seed=3)
    assert again.info == capture.info
    assert all(torch.equal(again.tensors[k], capture.tensors[k]) for k in capture.tensors)
    assert capture.nbytes() == sum(t.nbytes for t in capture.tensors.values()) > 0


def test_several_images_are_read_as_each_alone(backend: Backend, image: np.ndarray) -> None:
    """Batched where the reader offers it, else one by one; the tolerance is that of maps of half-precision queries."""
    reader = backend.reader()
    asked = [
        ReadRequest(image, seed=3),
        ReadRequest(image[:, ::-1].copy(), "red", 4),
        ReadRequest(image[:40].copy(), seed=3),
    ]
    found = capture_many(reader, asked, Needs())
    query = [backend.attributor.words("red")]
    for request, capture in zip(asked, found, strict=True):
        alone = reader.capture(request.image, Needs(), prompt=request.prompt, seed=request.seed)
        assert capture.info == alone.info
        maps = backend.attributor.maps(capture, query)
        assert torch.allclose(maps, backend.attributor.maps(alone, query), atol=1e-3)
    assert not torch.allclose(
        backend.attributor.maps(found[0], query), backend.attributor.maps(found[1], query), atol=1e-3
    )
    assert capture_many(reader, [], Needs()) == []


def test_capture_survives_storage(backend: Backend, capture: Capture) -> None:
    info = asdict(capture.info)
    stored = json.loads(json.dumps(info))
    back = Capture(
        replace(capture.info, layout=stored["layout"], timesteps=tuple(stored["timesteps"])),
        load(save(dict(capture.tensors))),
    )
    query = [backend.attributor.words("red")]
    assert torch.equal(backend.attributor.maps(back, query), backend.attributor.maps(capture, query))


def test_maps_of_all_classes_in_one_pass(backend: Backend, capture: Capture) -> None:
    attributor = backend.attributor
    queries = [attributor.words(label) for label in ("red", "green", "white blue")]
    maps = attributor.maps(capture, queries)
    assert maps.dtype == torch.float32 and maps.shape[0] == 3 and maps.ndim == 3
    assert maps.shape[2] > maps.shape[1]
    assert float(maps.min()) >= 0 and float(maps.max()) <= 1 + 1e-6
    for i, query in enumerate(queries):
        assert torch.allclose(attributor.maps(capture, [query])[0], maps[i], atol=1e-6)
    assert not torch.allclose(maps[0], maps[1], atol=1e-4)


def test_words(backend: Backend) -> None:
    attributor = backend.attributor
    for label in ("red", "defect_07", "Ölfleck", "two words"):
        for tokens in attributor.words(label):
            assert tokens.embeddings.dtype == torch.float32
            assert tokens.embeddings.ndim == 2 and tokens.embeddings.shape[1] == attributor.embedding_size
            assert len(tokens.embeddings) >= 2
            assert tokens.columns and all(0 <= c < len(tokens.embeddings) for c in tokens.columns)
        noun = attributor.noun(label)
        assert noun.shape == (attributor.embedding_size,) and noun.dtype == np.float32 and np.isfinite(noun).all()
        assert isinstance(attributor.knows(label), bool)
    attributor.words("red", "A photograph of a red wall")
    with pytest.raises(BackendError):
        attributor.words(" ")


def test_long_prompts_are_refused(backend: Backend, image: np.ndarray) -> None:
    with pytest.raises(PromptTooLongError):
        backend.attributor.words("red", LONG)
    with pytest.raises(PromptTooLongError):
        backend.reader().capture(image, Needs(), prompt=LONG)
    with pytest.raises(PromptTooLongError):
        backend.reader().generate(LONG, Needs(), seed=0, steps=1)


def test_tokens(backend: Backend, capture: Capture) -> None:
    attributor = backend.attributor
    wide = attributor.embedding_size
    rng = np.random.default_rng(0)
    for rows in (2, 3):
        (tokens,) = attributor.token(rng.standard_normal((rows, wide)).astype(np.float32))
        assert tokens.columns == tuple(range(1, rows))
        assert attributor.maps(capture, [(tokens,)]).shape[0] == 1
    for bad in (np.zeros((1, wide)), np.zeros((2, wide + 1)), np.zeros(wide), np.full((2, wide), np.nan)):
        with pytest.raises(BackendError):
            attributor.token(bad)


def test_maps_are_differentiable(backend: Backend, capture: Capture) -> None:
    (tokens, *_) = backend.attributor.words("red")
    free = tokens.embeddings.clone().requires_grad_()
    backend.attributor.maps(capture, [(TokenSet(free, tokens.columns),)]).sum().backward()
    assert free.grad is not None and torch.isfinite(free.grad).all() and float(free.grad.abs().max()) > 0


def test_learning(backend: Backend, example: TokenExample) -> None:
    attributor = backend.attributor
    said: list[float] = []
    recipe = TokenRecipe(optimizer="adam", epochs=10, learning_rate=0.1)
    fit = attributor.learn([example, example], recipe, label="red", progress=lambda f, s: said.append(f))
    assert fit.embedding.shape == (2, attributor.embedding_size) and fit.embedding.dtype == np.float32
    assert fit.losses[fit.best_epoch] == min(fit.losses) <= fit.losses[0]
    assert 0 <= fit.train_iou <= 1
    assert said and said == sorted(said) and said[0] >= 0 and said[-1] <= 1
    attributor.maps(example.capture, [attributor.token(fit.embedding)])


def test_learning_needs_weighted_pixels(backend: Backend, example: TokenExample) -> None:
    with pytest.raises(BackendError):
        backend.attributor.learn([], TokenRecipe(epochs=1), label="red")
    with pytest.raises(BackendError):
        blind = replace(example, weight=np.zeros_like(example.weight))
        backend.attributor.learn([blind], TokenRecipe(epochs=1), label="red")


def test_generation(backend: Backend) -> None:
    reader = backend.reader()
    made = reader.generate("red", Needs(), seed=5, steps=2, size=(64, 96))
    assert made.image.shape == (64, 96, 3) and made.image.dtype == np.uint8
    info = made.capture.info
    assert (info.origin, info.prompt, info.seed, info.image_size) == ("generated", "red", 5, (64, 96))
    assert np.array_equal(made.image, reader.generate("red", Needs(), seed=5, steps=2, size=(64, 96)).image)
    assert not np.array_equal(made.image, reader.generate("red", Needs(), seed=6, steps=2, size=(64, 96)).image)
    passes = reader.unet_passes
    assert backend.attributor.maps(made.capture, [backend.attributor.words("red")]).shape[0] == 1
    assert reader.unet_passes == passes


def test_progress_may_cancel(backend: Backend, image: np.ndarray) -> None:
    class Cancelled(Exception):
        pass

    def cancel(fraction: float, sentence: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        backend.reader().capture(image, Needs(), progress=cancel)
    backend.reader().capture(image, Needs())


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3)])
def test_small_images(backend: Backend, shape: tuple[int, int, int]) -> None:
    capture = backend.reader().capture(np.full(shape, 128, np.uint8), Needs())
    assert capture.info.image_size == shape[:2]
    assert torch.isfinite(backend.attributor.maps(capture, [backend.attributor.words("red")])).all()


def test_what_is_no_image_is_refused(backend: Backend) -> None:
    with pytest.raises(BackendError):
        backend.reader().capture(np.zeros((8, 8), np.uint8), Needs())


def test_regions_that_are_compared_are_as_alike_as_they_can_be_with_themselves(
    backend: Backend, capture: Capture, example: TokenExample, request: pytest.FixtureRequest
) -> None:
    attributor = backend.attributor
    assert isinstance(attributor, RegionSource) == (request.node.callspec.params["backend"] != "colour")
    if not isinstance(attributor, RegionSource):
        return
    square, other = example.target > 0, np.zeros((48, 96), bool)
    other[8:40, 64:90] = True
    vectors = attributor.regions(capture, np.stack([square, other, np.zeros_like(square)]))
    assert vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == 3
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0], atol=1e-4)
    assert vectors[0] @ vectors[1] < 0.99
    assert np.allclose(attributor.regions(capture, square[None])[0], vectors[0], atol=1e-5)
