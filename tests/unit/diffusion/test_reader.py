"""Received and generated images of any size: deterministic, counted, non-square throughout, refused in one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_pipeline import LIMIT, build
from safetensors.torch import load, save

from backends.attention.queries import QueryBundle
from backends.attention.spread import Affinity, holds_affinity, without_affinity
from backends.contract import Backend, BackendError, Capture, Needs, PromptTooLongError, Reader
from backends.diffusion import sizes
from backends.diffusion.calibration import ReadDefaults
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.pipeline import load_pipeline
from backends.diffusion.reader import StableDiffusionReader
from backends.discovery import load_backend


@pytest.fixture(scope="module")
def reader(backend: Backend) -> Reader:
    return backend.reader()


def same(one: Capture, other: Capture) -> bool:
    return one.info == other.info and all(
        torch.equal(one.tensors[k], other.tensors[k]) for k in one.tensors | other.tensors
    )


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([(512, 64), (768, 64), (128, 16), (256, 32)]))
def test_read_size(height: int, width: int, model: tuple[int, int]) -> None:
    side, multiple = model
    h, w = sizes.read_size((height, width), side, multiple)
    assert h % multiple == w % multiple == 0 and h >= multiple and w >= multiple
    assert h * w <= 1.6 * side * side
    if max(height, width) <= 3 * min(height, width):
        assert h * w >= 0.6 * side * side
        assert 0.6 < (h / w) / (height / width) < 1.7
    assert sizes.read_size((width, height), side, multiple) == (w, h)


def test_native_sizes_are_kept() -> None:
    assert sizes.read_size((512, 512), 512, 64) == (512, 512)
    assert sizes.read_size((480, 640), 512, 64) == (448, 576)
    assert sizes.read_size((1, 1), 128, 16) == (128, 128)
    assert sizes.read_size((8, 8000), 512, 64) == (64, 4096)


def test_non_square_image_keeps_height_and_width_apart(backend: Backend, reader: Reader, photo: np.ndarray) -> None:
    capture = reader.capture(photo, Needs(self_attention=(1,)))
    assert capture.info.image_size == (90, 150)
    assert capture.info.latent_size == (16, 24)
    bundle = QueryBundle.from_tensors(capture.tensors, capture.info.layout)
    assert bundle.size == (16, 24)
    assert backend.attributor.maps(capture, [backend.attributor.words("cat")]).shape == (1, 16, 24)
    # Turned on its side, the picture's map is the map of another grid, not a reshaped one.
    turned = reader.capture(np.ascontiguousarray(photo.transpose(1, 0, 2)), Needs())
    assert turned.info.latent_size == (24, 16)


def test_reading_is_deterministic_and_counted(reader: Reader, photo: np.ndarray) -> None:
    before = reader.unet_passes
    one = reader.capture(photo, Needs(timesteps=(50, 200)), seed=4)
    assert reader.unet_passes == before + 2
    assert same(one, reader.capture(photo, Needs(timesteps=(50, 200)), seed=4))
    assert not same(one, reader.capture(photo, Needs(timesteps=(50, 200)), seed=5))
    assert one.info.timesteps == (50, 200) and one.info.origin == "received"


def test_a_steps_noise_does_not_depend_on_the_other_steps(reader: Reader, photo: np.ndarray) -> None:
    both = reader.capture(photo, Needs(timesteps=(50, 200)), seed=4)
    alone = reader.capture(photo, Needs(timesteps=(200,)), seed=4)
    for name, tensor in alone.tensors.items():
        assert torch.equal(both.tensors[name][1:], tensor)


def test_prompt_conditions_the_pass(reader: Reader, photo: np.ndarray) -> None:
    without, cat = reader.capture(photo, Needs()), reader.capture(photo, Needs(), prompt="a cat")
    assert cat.info.prompt == "a cat"
    assert any(not torch.equal(without.tensors[k], cat.tensors[k]) for k in cat.tensors)


def test_noise_is_added_as_the_scheduler_does(folder: Path, backend: Backend, photo: np.ndarray) -> None:
    """What the UNet sees is the scaled latents of the image with unit noise at the schedule's level."""
    pipeline = load_pipeline(ModelFolder.open(str(folder)), "cpu")
    reader = StableDiffusionReader(pipeline, backend.attributor.text, ReadDefaults(), {}, "")
    seen: list[torch.Tensor] = []
    pipeline.unet.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    steps = (0, 400, 999)
    reader.capture(photo, Needs(timesteps=steps))
    small = torch.from_numpy(sizes.resized(photo, (128, 192)).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latents = pipeline.vae.encode(small).latent_dist.mode() * 0.18215
    alphas = pipeline.scheduler.alphas_cumprod
    for step, noisy in zip(steps, seen, strict=True):
        noise = (noisy - alphas[step] ** 0.5 * latents) / (1 - alphas[step]) ** 0.5
        assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1
        assert torch.allclose(pipeline.scheduler.add_noise(latents, noise, torch.tensor([step])), noisy, atol=1e-5)
    assert reader.unet_passes == 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (7, 3), (300, 2)])
def test_tiny_and_thin_images_are_read(backend: Backend, reader: Reader, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3)).astype(np.uint8)
    capture = reader.capture(image, Needs())
    assert capture.info.image_size == shape
    maps = backend.attributor.maps(capture, [backend.attributor.words("cat")])
    assert maps.shape[1:] == capture.info.latent_size and torch.isfinite(maps).all()


def test_large_image_is_resized_as_bytes(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = sizes.to_tensor
    monkeypatch.setattr(sizes, "to_tensor", lambda image: made.append(image.size) or original(image))
    capture = reader.capture(np.full((8000, 600, 3), 90, np.uint8), Needs())
    assert capture.info.image_size == (8000, 600)
    assert made == [3 * 64 * capture.info.latent_size[0] * capture.info.latent_size[1]]
    assert made[0] < 100_000


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(reader: Reader, image: np.ndarray) -> None:
    with pytest.raises(BackendError, match=r"image"):
        reader.capture(image, Needs())


@pytest.mark.parametrize("timesteps", [(), (1000,), (-1,)])
def test_timesteps_outside_the_schedule_are_refused(
    reader: Reader, photo: np.ndarray, timesteps: tuple[int, ...]
) -> None:
    with pytest.raises(BackendError, match=r"0\.\.999"):
        reader.capture(photo, Needs(timesteps=timesteps))


def test_long_prompts_are_refused_never_cut(reader: Reader, photo: np.ndarray) -> None:
    fits, long = " ".join(["cat"] * (LIMIT - 2)), " ".join(["cat"] * (LIMIT - 1))
    reader.capture(photo, Needs(), prompt=fits)
    before = reader.unet_passes
    for call in (
        lambda: reader.capture(photo, Needs(), prompt=long),
        lambda: reader.generate(long, Needs(), seed=0, steps=1),
        lambda: reader.generate("a cat", Needs(), seed=0, steps=1, negative_prompt=long),
    ):
        with pytest.raises(PromptTooLongError, match=f"takes {LIMIT}"):
            call()
    assert reader.unet_passes == before


def test_generation_is_deterministic_by_seed(reader: Reader) -> None:
    options = {"steps": 2, "size": (64, 96), "guidance": 4.0}
    before = reader.unet_passes
    one = reader.generate("a cat", Needs(self_attention=(1,)), seed=3, **options)
    assert reader.unet_passes == before + 2
    again = reader.generate("a cat", Needs(self_attention=(1,)), seed=3, **options)
    other = reader.generate("a cat", Needs(self_attention=(1,)), seed=4, **options)
    assert one.image.shape == (64, 96, 3) and one.image.dtype == np.uint8
    assert np.array_equal(one.image, again.image) and same(one.capture, again.capture)
    assert not np.array_equal(one.image, other.image)
    info = one.capture.info
    assert (info.origin, info.seed, info.steps, info.guidance, info.latent_size) == ("generated", 3, 2, 4.0, (8, 12))
    assert len(info.timesteps) == 2 and info.scheduler == "DDIMScheduler"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": (65, 64)}, "multiples of 8"),
        ({"steps": 0}, "steps is 0"),
        ({"guidance": float("nan")}, "guidance is nan"),
    ],
)
def test_generation_settings_are_checked(reader: Reader, options: dict, sentence: str) -> None:
    with pytest.raises(BackendError, match=sentence):
        reader.generate("a cat", Needs(), seed=0, **options)


def test_progress_rises_and_may_cancel(reader: Reader, photo: np.ndarray) -> None:
    seen: list[float] = []
    reader.generate("a cat", Needs(), seed=0, steps=3, size=(64, 64), progress=lambda f, s: seen.append(f))
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) == 4

    class Cancelled(Exception):
        pass

    def cancel(fraction: float, sentence: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        reader.generate("a cat", Needs(), seed=0, steps=3, size=(64, 64), progress=cancel)
    with pytest.raises(Cancelled):
        reader.capture(photo, Needs(), progress=cancel)
    assert reader.capture(photo, Needs()).tensors


def test_captures_survive_safetensors_and_json(backend: Backend, reader: Reader, photo: np.ndarray) -> None:
    capture = reader.capture(photo, Needs(self_attention=(1, 2)))
    tensors = load(save(dict(capture.tensors)))
    layout = json.loads(json.dumps(asdict(capture.info)))["layout"]
    back = Capture(capture.info, tensors)
    assert capture.nbytes() == back.nbytes() > 0
    assert QueryBundle.from_tensors(tensors, layout).size == (16, 24)
    query = [backend.attributor.words("cat")]
    assert torch.equal(backend.attributor.maps(back, query), backend.attributor.maps(capture, query))


def test_v_prediction_small_autoencoder_and_own_defaults(tmp_path: Path, photo: np.ndarray) -> None:
    folder = build(
        tmp_path / "small",
        vae="tiny",
        prediction="v_prediction",
        read={"timesteps": [50, 150], "side": 64},
        generate={"steps": 4, "guidance": 2.0, "size": [64, 96], "groups": 2},
    )
    backend = load_backend(str(folder))
    capture = backend.reader().capture(photo, Needs())
    assert capture.info.timesteps == (50, 150) and capture.info.latent_size == (8, 8)
    made = backend.reader().generate("a dog", Needs(), seed=0)
    assert made.image.shape == (64, 96, 3) and len(made.capture.info.timesteps) == 4
    bundle = QueryBundle.from_tensors(made.capture.tensors, made.capture.info.layout)
    assert bundle.steps == 2
    assert backend.reader_settings["timesteps"] == [50, 150] == backend.reader().settings["timesteps"]
    assert backend.reader() is backend.reader()


def test_a_folder_may_ask_for_spread_maps(tmp_path: Path, photo: np.ndarray) -> None:
    plain = load_backend(str(build(tmp_path / "plain", read={"timesteps": [50, 150]})))
    asked = load_backend(str(build(tmp_path / "spread", read={"timesteps": [50, 150], "spread": True})))
    assert asked.reader_settings["spread"] is True and "spread" not in plain.reader_settings
    queries = [asked.attributor.words("cat"), asked.attributor.words("dog")]
    for capture in (
        asked.reader().capture(photo, Needs()),
        asked.reader().generate("a dog", Needs(), seed=0, steps=2, guidance=3.0, size=(64, 96)).capture,
    ):
        raw = asked.attributor.maps(without_affinity(capture), queries)
        spread = Affinity.from_tensors(capture.tensors, capture.info.layout).spread(raw)
        torch.testing.assert_close(asked.attributor.maps(capture, queries), spread)
        assert not torch.allclose(spread, raw, rtol=1e-3)
    capture = plain.reader().capture(photo, Needs())
    assert not holds_affinity(capture)
    assert not holds_affinity(asked.reader().capture(photo, Needs(queries=False, features=(1,))))


@pytest.mark.parametrize(
    "name",
    ["PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"],
)
def test_schedulers(folder: Path, tmp_path: Path, backend: Backend, photo: np.ndarray, name: str) -> None:
    """Each recorded pass is a step of the scheduler; images are read alike, whatever the scheduler's own scaling."""
    copy = shutil.copytree(folder, tmp_path / "m")
    config = json.loads((copy / "scheduler/scheduler_config.json").read_text())
    (copy / "scheduler/scheduler_config.json").write_text(json.dumps({**config, "_class_name": name}))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", name]}))
    reader = load_backend(str(copy)).reader()
    one, again = (reader.generate("a cat", Needs(), seed=1, steps=4, size=(64, 64)) for _ in range(2))
    assert np.array_equal(one.image, again.image) and same(one.capture, again.capture)
    assert len(one.capture.info.timesteps) == reader.unet_passes / 2 >= 4
    assert QueryBundle.from_tensors(one.capture.tensors, one.capture.info.layout).steps == reader.unet_passes / 2
    read, plain = reader.capture(photo, Needs()), backend.reader().capture(photo, Needs())
    assert all(torch.equal(read.tensors[k], plain.tensors[k]) for k in plain.tensors)
