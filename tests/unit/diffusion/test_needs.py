"""Features and latents are what the UNet and the autoencoder hold; several images are read as one alone would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_pipeline import build

from backends.contract import (
    Backend,
    BackendError,
    BatchReader,
    Capture,
    Needs,
    PromptTooLongError,
    ReadRequest,
    capture_many,
)
from backends.diffusion.features import FeatureMaps
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.pipeline import load_pipeline
from backends.diffusion.reader import MOST_IMAGES
from backends.discovery import load_backend

#: Largest difference of a query read in a batch, as a part of the largest query: one step of half precision.
BATCH_ERROR = 2e-3


@pytest.fixture(scope="module")
def embedded() -> Backend:
    return load_backend("embedded")


def test_keys_stay_what_they_were() -> None:
    assert Needs().key() == "queries=1;self_attention=;timesteps=default;preset=exact"
    assert Needs(False, (2, 1), (50, 10)).key() == "queries=0;self_attention=1,2;timesteps=50,10;preset=exact"
    keys = {Needs(features=f, latents=x).key() for f in ((), (1,), (1, 2), (2, 1)) for x in (False, True)}
    assert len(keys) == 6


def test_features_are_the_up_blocks_hidden_states(embedded: Backend, photo: np.ndarray) -> None:
    reader: Any = embedded.reader()
    seen: dict[str, torch.Tensor] = {}
    unet = reader._pipeline.unet
    # conv_norm_out takes what the last up block (factor 1) leaves; an upsampler takes what its block leaves.
    handles = [unet.conv_norm_out.register_forward_pre_hook(lambda _m, args: seen.update({"1": args[0]}))]
    block = unet.up_blocks[len(unet.up_blocks) - 2]
    handles.append(block.upsamplers[0].register_forward_pre_hook(lambda _m, args: seen.update({"2": args[0]})))
    capture = reader.capture(photo, Needs(queries=False, features=(2, 1)))
    for handle in handles:
        handle.remove()
    maps = FeatureMaps.from_tensors(capture.tensors, capture.info.layout).maps
    assert list(maps) == [1, 2] and set(capture.tensors) == {"features.1", "features.2"}
    assert tuple(maps[1].shape[-2:]) == capture.info.latent_size
    for factor, states in maps.items():
        assert states.dtype == torch.float16 and states.shape[0] == 1
        assert torch.equal(states[0], seen[str(factor)][0].half())


def test_features_of_a_guided_generation_are_its_conditional_half(backend: Backend) -> None:
    reader = backend.reader()
    options: dict[str, Any] = {"seed": 1, "steps": 2, "size": (96, 128)}
    guided = reader.generate("a cat", Needs(features=(1, 4)), **options, negative_prompt="a dog").capture
    alone = reader.generate("a cat", Needs(features=(1, 4)), **options, guidance=1.0).capture
    one, other = (FeatureMaps.from_tensors(c.tensors, c.info.layout).maps for c in (guided, alone))
    assert one[1].shape[0] == 2 and tuple(one[1].shape[-2:]) == (12, 16) and tuple(one[4].shape[-2:]) == (3, 4)
    for factor in (1, 4):  # the first step's latents are the same noise, whatever the guidance
        assert torch.allclose(one[factor][0].float(), other[factor][0].float(), atol=2e-2)


def test_latents_of_a_received_image_are_the_autoencoders(folder: Path, backend: Backend, photo: np.ndarray) -> None:
    capture = backend.reader().capture(photo, Needs(queries=False, latents=True))
    vae = load_pipeline(ModelFolder.open(str(folder)), "cpu").vae
    from backends.diffusion import sizes

    with torch.no_grad():
        mode = vae.encode(sizes.to_tensor(sizes.resized(photo, (128, 192)))).latent_dist.mode()[0]
    latents = capture.tensors["latents"]
    assert tuple(latents.shape[1:]) == capture.info.latent_size == (16, 24)
    assert torch.equal(latents, mode * float(vae.config.scaling_factor))
    assert capture.info.layout["latents"]["scaling_factor"] == pytest.approx(float(vae.config.scaling_factor))


def test_latents_of_a_generated_image_decode_to_it(embedded: Backend) -> None:
    from backends.diffusion import sizes

    reader: Any = embedded.reader()
    made = reader.generate("a red car", Needs(latents=True), seed=2, steps=3)
    latents = made.capture.tensors["latents"] / made.capture.info.layout["latents"]["scaling_factor"]
    with torch.no_grad():
        decoded = reader._pipeline.vae.decode(latents[None], return_dict=False)[0]
    assert np.array_equal(sizes.to_image(decoded), made.image)


@pytest.mark.parametrize(("factor", "sentence"), [(3, "Features at factor 3"), (16, "works at 1, 2, 4, 8")])
def test_factors_that_are_not_there_are_refused(
    backend: Backend, photo: np.ndarray, factor: int, sentence: str
) -> None:
    with pytest.raises(BackendError, match=sentence):
        backend.reader().capture(photo, Needs(features=(factor,)))


def test_missing_features_say_what_to_do(backend: Backend, photo: np.ndarray) -> None:
    capture = backend.reader().capture(photo, Needs())
    with pytest.raises(BackendError, match=r"Needs\(features=\(1,\)\)"):
        FeatureMaps.from_tensors(capture.tensors, capture.info.layout)


def test_bytes_of_each_need(backend: Backend, photo: np.ndarray) -> None:
    needs = Needs(self_attention=(1, 2), features=(2,), latents=True)
    capture = backend.reader().capture(photo, needs)
    found = capture.bytes_by_need()
    assert set(found) == {"queries", "self_attention", "features", "latents"}
    assert sum(found.values()) == capture.nbytes()
    assert found["latents"] == 4 * 16 * 24 * 4


def requests(photo: np.ndarray, count: int) -> list[ReadRequest]:
    """Images of two sizes in turn, each with a prompt and a seed of its own."""
    tall = np.ascontiguousarray(photo.transpose(1, 0, 2))
    words = ("", "a cat", "a dog on the beach")
    return [ReadRequest(np.roll(tall if k % 3 == 2 else photo, 7 * k, 1), words[k % 3], k) for k in range(count)]


def differs(one: Capture, other: Capture) -> float:
    assert one.info == other.info and set(one.tensors) == set(other.tensors)
    pairs = [(one.tensors[k].float(), other.tensors[k].float()) for k in one.tensors]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("which", ["random", "embedded"])
def test_a_batch_reads_each_image_as_alone(which: str, backend: Backend, embedded: Backend, photo: np.ndarray) -> None:
    reader = {"random": backend, "embedded": embedded}[which].reader()
    assert isinstance(reader, BatchReader)
    # As computed: a rounding that falls the other way is a whole step of 8 bits.
    needs = Needs(self_attention=(1,), features=(1,), latents=True, timesteps=(50, 300), preset="lossless")
    asked = requests(photo, 7)
    before = reader.unet_passes
    together = capture_many(reader, asked, needs)
    assert reader.unet_passes - before == 2 * 2  # two sizes, two steps
    for request, found in zip(asked, together, strict=True):
        alone = reader.capture(request.image, needs, prompt=request.prompt, seed=request.seed)
        assert differs(alone, found) <= BATCH_ERROR
        assert torch.equal(alone.tensors["latents"], found.tensors["latents"])


def test_batches_are_bounded_and_report(tmp_path: Path, photo: np.ndarray) -> None:
    reader: Any = load_backend(str(build(tmp_path / "m"))).reader()
    widths: list[int] = []
    reader._pipeline.unet.register_forward_pre_hook(lambda _m, args: widths.append(args[0].shape[0]))
    seen: list[float] = []
    found = reader.capture_many(
        [ReadRequest(photo)] * (MOST_IMAGES + 3), Needs(), progress=lambda fraction, _: seen.append(fraction)
    )
    assert widths == [MOST_IMAGES, 3] and len(found) == MOST_IMAGES + 3
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == pytest.approx(1.0)


def test_a_bad_request_stops_the_batch_before_any_pass(backend: Backend, photo: np.ndarray) -> None:
    reader: Any = backend.reader()
    before = reader.unet_passes
    with pytest.raises(PromptTooLongError):
        reader.capture_many([ReadRequest(photo), ReadRequest(photo, "cat " * 40)], Needs())
    with pytest.raises(BackendError):
        reader.capture_many([ReadRequest(photo), ReadRequest(np.zeros((3, 3)))], Needs())
    assert reader.unet_passes == before
