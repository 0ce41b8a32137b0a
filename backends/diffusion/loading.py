"""From a model folder to a ready :class:`~backends.contract.Backend`; the embedded model and a user's take the same way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.contract import Backend, BackendError, Fingerprint, Progress, Reader
from backends.diffusion.attributor import StableDiffusionAttributor
from backends.diffusion.calibration import attribution_of, calibration_of, reading_of
from backends.diffusion.capture import CONDITIONAL
from backends.diffusion.fingerprints import file_vocabulary, file_weights, space_and_parts
from backends.diffusion.key_projections import read_projections
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.text import TextEncoder

#: Weights up to this size are hashed whole for cache keys, larger ones by samples.
_WHOLE = 64 << 20
_SAMPLE, _SAMPLES = 1 << 16, 64


def load_folder(folder: ModelFolder, name: str, device: str, progress: Progress | None = None) -> Backend:
    """A backend of a pipeline folder.  Neither diffusers nor the UNet is loaded before the reader is asked for.

    Args:
        folder: the pipeline.
        name: of the backend.
        device: torch device of the reader and of the maps; the text encoder stays on the CPU.

    Raises:
        BackendError: a part is missing, damaged or does not fit the others.
    """
    attribution, defaults, calibration = attribution_of(folder), reading_of(folder), calibration_of(folder)
    files, _ = folder.weights("unet")
    projections = read_projections(files, folder.config("unet"))
    width = int(folder.config("text_encoder").get("hidden_size", 0))
    wanted = next(iter(projections.values())).embedding_size
    if width != wanted:
        raise BackendError(f"The text encoder in {folder.path} is {width} wide; its UNet takes embeddings of {wanted}.")
    if progress is not None:
        progress(0.5, "Identifying the embedding space.")
    text_files, _ = folder.weights("text_encoder")
    space, parts = space_and_parts(file_weights(text_files), file_vocabulary(folder.path / "tokenizer"), projections)
    scheduler = folder.index.get("scheduler") or ["", ""]
    settings: dict[str, Any] = {
        "layers": "cross-attention of down and up blocks",
        "cfg_half": CONDITIONAL,
        "timesteps": list(defaults.timesteps),
        "side": defaults.side,
        "groups": defaults.groups,
        "scheduler": str(scheduler[1]),
    }
    fingerprint = Fingerprint(
        space, folder.name, {**settings, "template": attribution.template, "context": attribution.context}, parts
    )
    text = TextEncoder.from_folder(folder)
    attributor = StableDiffusionAttributor(
        text, projections, fingerprint, calibration, attribution, folder.known_words(), device
    )
    # The UNet and the VAE shape a capture without being part of the embedding space.
    reader_settings = {**settings, "space": space, "weights": _content(folder), "version": 1}
    if defaults.spread:  # elsewhere settings stay what they were, and with them the keys of caches
        reader_settings["spread"] = True

    def make() -> Reader:
        from backends.diffusion.pipeline import load_pipeline
        from backends.diffusion.reader import StableDiffusionReader

        return StableDiffusionReader(load_pipeline(folder, device), text, defaults, reader_settings, folder.name)

    return Backend(name, attributor, _once(make), reader_settings)


def _once(make: Callable[[], Reader]) -> Callable[[], Reader]:
    """``make`` called at most once, whichever thread comes first; a failure is tried again."""
    lock = threading.Lock()
    made: list[Reader] = []

    def get() -> Reader:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get


def _content(folder: ModelFolder) -> str:
    """SHA-256 (hex) telling apart UNets, VAEs and schedulers; large files by their length and evenly spread samples."""
    total = hashlib.sha256()
    for part in ("unet", "vae"):
        total.update(_text(folder.config(part)))
        for file in folder.weights(part)[0]:
            _add_file(total, file)
    scheduler = folder.path / "scheduler" / "scheduler_config.json"
    total.update(scheduler.read_bytes() if scheduler.is_file() else b"")
    return total.hexdigest()


def _add_file(total: Any, file: Path) -> None:
    length = file.stat().st_size
    total.update(str(length).encode())
    with file.open("rb") as stream:
        if length <= _WHOLE:
            total.update(stream.read())
            return
        for index in range(_SAMPLES):
            stream.seek((length - _SAMPLE) * index // (_SAMPLES - 1))
            total.update(stream.read(_SAMPLE))


def _text(config: Mapping[str, Any]) -> bytes:
    return repr(sorted((k, v) for k, v in config.items() if not k.startswith("_"))).encode()
