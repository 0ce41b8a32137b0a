"""With the embedded model: a generated image's capture that is evicted or damaged comes back bit-identical."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.contract import Capture, Needs
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.image_source import load_image
from ovam_labeler.settings import Settings

MAKING = {"steps": 4, "guidance": 2.0, "negative_prompt": "a tree", "size": (96, 128)}


def only_file(app: OvamApplication) -> Path:
    (path,) = (app.settings.data_dir / "captures").glob("??/*.safetensors")
    return path


def evict(app: OvamApplication) -> None:
    assert app.cache.prune(0)[0] == 1


def tear(app: OvamApplication) -> None:
    path = only_file(app)
    path.write_bytes(path.read_bytes()[:-100])


def flip(app: OvamApplication) -> None:
    path = only_file(app)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(bytes(data))


def same(one: Capture, other: Capture) -> bool:
    return one.info == other.info and all(torch.equal(one.tensors[n], other.tensors[n]) for n in one.tensors)


@pytest.mark.parametrize("harm", [evict, tear, flip])
def test_generated(settings: Settings, harm: Callable[[OvamApplication], None]) -> None:
    needs = Needs(self_attention=(1,), latents=True)
    with build_application(settings) as app:
        image, png, capture = app.inference.generate("a red car", seed=11, needs=needs, **MAKING)
        expected = Capture(capture.info, {name: tensor.clone() for name, tensor in capture.tensors.items()})
    with build_application(
        settings
    ) as app:  # another start of the program, which knows of the image by its record alone
        harm(app)
        uploaded = load_image(png)
        again = app.inference.submit(uploaded, needs, prompt="what the task says").result(120)
        assert app.backend().reader().unet_passes == MAKING["steps"]
        assert same(again, expected)
        assert app.inference.submit(uploaded, needs).done()
        assert np.array_equal(uploaded.pixels, image.pixels)
        # Needs that were not recorded at the time come from the same making.
        more = app.inference.submit(uploaded, Needs(features=(1,))).result(120)
        assert (more.info.origin, more.info.seed, more.info.guidance) == ("generated", 11, 2.0)
        assert more.info.timesteps == expected.info.timesteps


def test_received(settings: Settings) -> None:
    image = load_image(_png())
    with build_application(settings) as app:
        expected = app.inference.submit(image, Needs()).result(120)
        tensors = {name: tensor.clone() for name, tensor in expected.tensors.items()}
        flip(app)
        app.cache._verified.clear()  # as a process that has not read the file yet
        again = app.inference.submit(image, Needs()).result(120)
        assert again.info.origin == "received"
        assert same(again, Capture(expected.info, tensors))
        assert app.backend().reader().unet_passes == 2 * len(again.info.timesteps)


def _png() -> bytes:
    from ovam_labeler.image_source import encode_png

    draw = np.random.default_rng(0)
    return encode_png(draw.integers(0, 255, (80, 120, 3)).astype(np.uint8))
