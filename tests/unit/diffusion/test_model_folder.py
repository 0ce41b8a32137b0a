"""Folders that are no usable model: each is refused in one sentence that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backends.contract import BackendError
from backends.discovery import load_backend


@pytest.fixture()
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "model")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="No backend can load model"):
        load_backend(str(tmp_path / "nothing"))
    with pytest.raises(BackendError, match="does not exist"):
        load_backend(str(tmp_path / "nothing"), backend="stable-diffusion")


def test_another_kind_of_pipeline(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(BackendError, match="is a FluxPipeline"):
        load_backend(str(copy), backend="stable-diffusion")


def test_pickled_weights_are_never_loaded(copy: Path) -> None:
    file = copy / "unet/diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(BackendError, match="pickled weights are not loaded"):
        load_backend(str(copy))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_damaged_weights(copy: Path, part: str) -> None:
    file = next((copy / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BackendError, match="cannot be read"):
        load_backend(str(copy))


def test_damaged_autoencoder_is_told_when_the_reader_is_made(copy: Path) -> None:
    file = next((copy / "vae").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    backend = load_backend(str(copy))
    backend.attributor.words("cat")
    with pytest.raises(BackendError, match="cannot be loaded"):
        backend.reader()


def test_half_precision_variant(copy: Path, folder: Path) -> None:
    """Folders that hold ``*.fp16.safetensors`` only, as some repositories do."""
    from safetensors.torch import load_file, save_file

    for file in copy.glob("*/*.safetensors"):
        half = {k: v.half() for k, v in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"), metadata={"format": "pt"})
        file.unlink()
    backend = load_backend(str(copy))
    assert backend.attributor.words("cat")[0].embeddings.dtype.itemsize == 4
    assert next(backend.reader()._pipeline.unet.parameters()).dtype.itemsize == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "JSON object"),
        ('{"read": []}', "'read' must be an object"),
        ('{"read": {"timesteps": "50"}}', "'timesteps' must be a list"),
        ('{"read": {"side": -1}}', "'side'"),
        ('{"read": {"spread": 1}}', "'spread' must be true or false"),
        ('{"generate": {"size": [1]}}', "'size'"),
        ('{"attribution": {"context": "some"}}', "'context' must be one of full, pair"),
        ('{"attribution": {"template": "a photograph"}}', "'template' must contain {label}"),
        ('{"calibration": {"word_threshold": 2}}', "'word_threshold' must lie in 0.0..1.0"),
        ('{"calibration": {"word_threshold": NaN}}', "'word_threshold' must be a finite number"),
        ('{"calibration": {"word_recipe": {"epochs": "many"}}}', "'epochs' of 'word_recipe'"),
        ('{"calibration": {"word_recipe": {"optimizer": "magic"}}}', "'word_recipe' needs an optimizer"),
        ('{"known_words": "cat"}', "'known_words' must be a list"),
    ],
)
def test_wrong_settings_are_named(copy: Path, settings: str, sentence: str) -> None:
    (copy / "ovam.json").write_text(settings)
    with pytest.raises(BackendError) as error:
        load_backend(str(copy))
    assert sentence in str(error.value)


def test_unknown_settings_are_ignored(copy: Path) -> None:
    """Folders written for a later version still load."""
    (copy / "ovam.json").write_text('{"later": 1, "calibration": {"word_recipe": {"later": 2, "epochs": 7}}}')
    assert load_backend(str(copy)).attributor.calibration.word_recipe.epochs == 7


def test_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BackendError, match="could not be fetched from the hub .no route to host.*OVAM_MODEL"):
        load_backend("nobody/nothing")


def test_hub_name_becomes_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(folder))
    said: list[str] = []
    backend = load_backend("someone/their-model", progress=lambda f, s: said.append(s))
    assert asked == ["someone/their-model"] and any("someone/their-model" in s for s in said)
    assert backend.name == "stable-diffusion" and backend.attributor.words("cat")
