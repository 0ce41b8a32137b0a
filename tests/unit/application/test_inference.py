"""Captures: one reader thread, work joined in flight, cache hits without a reader, generated images never re-read."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_model import COLOURS, ColourModel, scene

from backends.contract import Backend, BackendError, Needs
from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions
from ovam_labeler.errors import BadRequestError, CancelledError, ModelError, OvamError
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.reader_thread import available_cores
from ovam_labeler.settings import Settings
from token_store.entities import Scope

SCOPE = Scope("default", "1")


def picture(colour: str = "red", at: int = 8) -> LoadedImage:
    return load_image(encode_png(scene((COLOURS[colour], (at, at, 32, 32)))))


def test_equal_work_in_flight_is_joined(app: OvamApplication, model: ColourModel) -> None:
    model.reader.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda _: app.inference.submit(picture(), Needs()), range(8)))
        other = app.inference.submit(picture("blue"), Needs())
        assert not any(f.done() for f in futures)
        assert len({id(f) for f in futures}) == 1
        model.reader.gate.set()
        assert torch.equal(futures[0].result(20).tensors["q"], futures[-1].result(20).tensors["q"])
        other.result(20)
    assert model.reader.unet_passes == 2
    assert len(model.reader.threads) == 1
    assert threading.get_ident() not in model.reader.threads


def test_cache_hits_load_no_reader_and_survive_a_restart(settings: Settings) -> None:
    first, second = ColourModel(), ColourModel()
    with build_application(settings, loader=first.load) as app:
        before = app.inference.submit(picture(), Needs()).result(20)
    with build_application(settings, loader=second.load) as app:
        after = app.inference.submit(picture(), Needs())
        assert after.done()
        assert torch.equal(after.result().tensors["q"], before.tensors["q"])
    assert second.readers == 0
    assert second.reader.unet_passes == 0


def test_prompt_needs_and_space_are_other_work(settings: Settings) -> None:
    model = ColourModel()
    with build_application(settings, loader=model.load) as app:
        app.inference.submit(picture(), Needs()).result(20)
        app.inference.submit(picture(), Needs(), prompt="a red thing").result(20)
        app.inference.submit(picture(), Needs(self_attention=(2,))).result(20)
        assert model.reader.unet_passes == 3
        assert app.inference.cached(picture().sha256, Needs(), prompt="a red thing") is not None
        assert app.inference.cached(picture().sha256, Needs(), prompt="another") is None
    other = ColourModel("space-2")
    with build_application(settings, loader=other.load) as app:
        app.inference.submit(picture(), Needs()).result(20)
    assert other.reader.unet_passes == 1


def test_generated_image_is_predicted_without_a_pass(app: OvamApplication, model: ColourModel) -> None:
    image, png, capture = app.inference.generate("a red box", seed=3, needs=Needs())
    assert capture.info.origin == "generated"
    passes = model.reader.unet_passes
    uploaded = load_image(png)
    assert uploaded.sha256 == image.sha256
    (proposal,) = app.proposer.propose(
        uploaded, [Label("red")], SCOPE, ProjectOptions(), prompt="whatever the task says"
    )
    assert proposal.present
    assert model.reader.unet_passes == passes
    record = app.store.get_image(image.sha256)
    assert record is not None
    assert (record.origin, record.prompt, record.seed) == ("generated", "a red box", 3)


def test_evicted_generated_capture_is_made_again_exactly(settings: Settings) -> None:
    model = ColourModel()
    small = settings.model_copy(update={"cache_max_bytes": 0})
    with build_application(small, loader=model.load) as app:
        image, _, capture = app.inference.generate(
            "a blue box", seed=5, needs=Needs(), size=(64, 96), negative_prompt="x"
        )
        again = app.inference.submit(image, Needs()).result(20)
    assert again.info.origin == "generated"
    assert (again.info.prompt, again.info.seed) == ("a blue box", 5)
    assert torch.equal(again.tensors["q"], capture.tensors["q"])


def test_generated_elsewhere_is_read_as_received(settings: Settings) -> None:
    first = ColourModel()
    with build_application(settings, loader=first.load) as app:
        image, _, _ = app.inference.generate("a red box", seed=1, needs=Needs())
    second = ColourModel("space-2")
    with build_application(settings, loader=second.load) as app:
        assert app.inference.submit(image, Needs()).result(20).info.origin == "received"


def test_an_image_that_cannot_be_made_again_is_read(app: OvamApplication, model: ColourModel) -> None:
    image, _, _ = app.inference.generate("a red box", seed=1, needs=Needs())
    for path in app.settings.data_dir.glob("captures/*/*.safetensors"):
        path.unlink()
    model.reader.generate = lambda *a, **k: type(model.reader).generate(  # type: ignore[method-assign]
        model.reader, "a green box", Needs(), seed=99
    )
    assert app.inference.submit(image, Needs()).result(20).info.origin == "received"


def test_same_seed_same_bytes(app: OvamApplication) -> None:
    first = app.inference.generate("a red box", seed=4, needs=Needs())
    second = app.inference.generate("a red box", seed=4, needs=Needs())
    assert first[1] == second[1]
    assert first[0].sha256 != app.inference.generate("a red box", seed=5, needs=Needs())[0].sha256


def test_errors_reach_all_who_wait_and_the_thread_lives_on(app: OvamApplication) -> None:
    tiny = load_image(encode_png(np.zeros((1, 1, 3), np.uint8)))
    for _ in range(2):
        with pytest.raises(BadRequestError, match="too small"):
            app.inference.submit(tiny, Needs()).result(20)
    assert app.inference.submit(picture(), Needs()).result(20) is not None
    with pytest.raises(BadRequestError, match="longer than 200"):
        app.inference.generate("x" * 300, seed=0, needs=Needs())


def test_progress_and_cancel(app: OvamApplication) -> None:
    seen: list[float] = []
    app.inference.submit(picture(), Needs(), progress=lambda f, m: seen.append(f)).result(20)
    assert seen == [0.5]

    def cancel(fraction: float, message: str) -> None:
        raise CancelledError("Enough.")

    with pytest.raises(CancelledError):
        app.inference.generate("a red box", seed=0, needs=Needs(), progress=cancel)


def test_damaged_entry_is_read_again(app: OvamApplication, model: ColourModel) -> None:
    app.inference.submit(picture(), Needs()).result(20)
    (path,) = app.settings.data_dir.glob("captures/*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    app.inference.submit(picture(), Needs()).result(20)
    assert model.reader.unet_passes == 2
    assert app.inference.submit(picture(), Needs()).done()


def test_unwritable_cache_fails_no_prediction(settings: Settings) -> None:
    (settings.data_dir / "captures").write_text("a file where the folder belongs")
    with build_application(settings, loader=ColourModel().load) as app:
        (proposal,) = app.proposer.propose(picture(), [Label("red")], SCOPE, ProjectOptions())
        assert proposal.mask.any()


def test_closed_inference_refuses(settings: Settings) -> None:
    model = ColourModel()
    app = build_application(settings, loader=model.load)
    model.reader.gate.clear()
    running = app.inference.submit(picture(), Needs())
    while not model.reader.threads:
        time.sleep(0.01)
    waiting = app.inference.submit(picture("blue"), Needs())
    threading.Timer(0.2, model.reader.gate.set).start()
    app.close()
    assert running.result(20) is not None
    with pytest.raises(OvamError, match="shutting down"):
        waiting.result(20)
    with pytest.raises(OvamError, match="shutting down"):
        app.inference.generate("a", seed=0, needs=Needs())


def test_backend_that_cannot_load_says_so_and_is_tried_again(settings: Settings) -> None:
    model, broken = ColourModel(), [True]

    def load(*args: object) -> Backend:
        if broken[0]:
            raise BackendError("Model folder 'x' does not exist; give a diffusers folder or a hub name.")
        return model.load("", None, "cpu", None)

    with build_application(settings, loader=load) as app:
        app.inference.warm_up()
        with pytest.raises(ModelError, match="does not exist"):
            app.inference.submit(picture(), Needs())
        broken[0] = False
        assert app.inference.submit(picture(), Needs()).result(20) is not None
    assert model.loads == 1


def test_available_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert available_cores() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert available_cores() == 1


def test_data_dir_is_initialised(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "a" / "b", _env_file=None)  # type: ignore[call-arg]
    with build_application(settings, loader=ColourModel().load) as app:
        assert app.store.list_tokens() == []
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OvamError, match="OVAM_DATA_DIR"):
        build_application(Settings(data_dir=blocked / "x", _env_file=None))  # type: ignore[call-arg]
