"""A diffusers pipeline folder on disk: where its parts are, and the optional ``ovam.json`` beside ``model_index.json``.

Only JSON and safetensors are ever opened.  A hub name is fetched into the hub's own cache first (safetensors only), so
that a folder is all the rest of this room knows.

``ovam.json`` (every field optional, unknown fields ignored)::

    {
      "name": "…",                                     shown to users
      "attribution": {"template": "A photograph of a {label}", "context": "full" | "pair", "thing": "thing"},
      "read":        {"timesteps": [100], "side": 512},   training timesteps; side of the square of equal area, pixels
      "generate":    {"steps": 30, "guidance": 7.5, "size": [512, 512], "groups": 10},
      "known_words": ["cat", …],                       or "split.json" beside it with {"known_words": […]}
      "calibration": {"word_threshold": 0.4, …, "word_recipe": {"optimizer": "adam", …}}
    }
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.contract import BackendError, Progress

INDEX = "model_index.json"
SETTINGS = "ovam.json"
PIPELINES = ("StableDiffusionPipeline",)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ("*.json", "*.txt", "unet/*.safetensors", "text_encoder/*.safetensors", "vae/*.safetensors")
_HUB_LEFT_OUT = ("*.non_ema.safetensors", "safety_checker/*", "feature_extractor/*")
_HALF = "*.fp16.safetensors"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Paths and JSON of one pipeline folder.

    Attributes:
        path: the folder.
        name: what to call the model (``ovam.json``'s name, else as the user named it).
        index: ``model_index.json``.
        settings: ``ovam.json``, or empty.
    """

    path: Path
    name: str
    index: Mapping[str, Any]
    settings: Mapping[str, Any]

    @classmethod
    def open(cls, model: str, progress: Progress | None = None) -> ModelFolder:
        """Open a local folder, or fetch a hub name.

        Raises:
            BackendError: nothing there, not a Stable Diffusion pipeline, or the hub cannot be reached.
        """
        path = Path(model).expanduser()
        if not path.is_dir():
            if not looks_like_hub_name(model):
                raise BackendError(f"Model folder {model!r} does not exist; give a diffusers folder or a hub name.")
            path = _fetch(model, progress)
        index = _json(path / INDEX)
        kind = index.get("_class_name")
        if kind not in PIPELINES:
            raise BackendError(
                f"Model {model!r} is a {kind}; the stable-diffusion backend loads {', '.join(PIPELINES)}."
            )
        settings = _json(path / SETTINGS) if (path / SETTINGS).is_file() else {}
        return cls(path, str(settings.get("name") or Path(model).name), index, settings)

    def config(self, part: str) -> Mapping[str, Any]:
        """``config.json`` of a part (``"unet"``, ``"vae"``, ``"text_encoder"``)."""
        return _json(self.path / part / "config.json")

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of ``ovam.json``, empty where it has none."""
        value = self.settings.get(name, {})
        if not isinstance(value, dict):
            raise BackendError(f"{SETTINGS}: {name!r} must be an object, not {type(value).__name__}.")
        return value

    def weights(self, part: str) -> tuple[list[Path], str | None]:
        """Safetensors files of a part and the ``variant`` diffusers calls them by.

        Full-precision files are preferred to a half-precision variant.

        Raises:
            BackendError: there are none (pickled weights are never loaded).
        """
        files = sorted((self.path / part).glob("*.safetensors"))
        plain = [
            f for f in files if re.fullmatch(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors", f.name)
        ]
        if plain:
            return plain, None
        half = [f for f in files if ".fp16" in f.name]
        if half:
            return half, "fp16"
        raise BackendError(
            f"Model folder {self.path} has no safetensors weights in {part!r}; pickled weights are not loaded: convert "
            "them with diffusers' save_pretrained(safe_serialization=True)."
        )

    def known_words(self) -> frozenset[str] | None:
        """Words the model was trained with, lower case; ``None`` where the folder does not say."""
        words = self.settings.get("known_words")
        if words is None and (self.path / "split.json").is_file():
            words = _json(self.path / "split.json").get("known_words")
        if words is None:
            return None
        if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise BackendError(f"{SETTINGS}: 'known_words' must be a list of words.")
        return frozenset(" ".join(w.lower().split()) for w in words)


def looks_like_hub_name(model: str) -> bool:
    """Whether ``model`` has the form ``owner/name``."""
    return bool(_HUB_NAME.fullmatch(model))


def accepts(model: str) -> bool:
    """Whether ``model`` is a folder of a Stable Diffusion pipeline, or could be a hub name."""
    path = Path(model).expanduser()
    if path.is_dir():
        return (path / INDEX).is_file() and _json(path / INDEX).get("_class_name") in PIPELINES
    return looks_like_hub_name(model)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackendError(f"Model file {path} is missing; the folder is no complete diffusers pipeline.") from None
    except (OSError, ValueError) as error:
        raise BackendError(f"Model file {path} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BackendError(f"Model file {path} must hold a JSON object, not {type(value).__name__}.")
    return value


def _fetch(model: str, progress: Progress | None) -> Path:
    """Download a hub repository's configuration and safetensors weights into the hub's cache."""
    from huggingface_hub import snapshot_download

    if progress is not None:
        progress(0.0, f"Fetching {model} from the hub.")
    try:
        path = Path(snapshot_download(model, allow_patterns=[*_HUB_FILES], ignore_patterns=[*_HUB_LEFT_OUT, _HALF]))
        if not any(path.glob("unet/*.safetensors")):  # a repository with half-precision weights alone
            path = Path(snapshot_download(model, allow_patterns=[*_HUB_FILES], ignore_patterns=[*_HUB_LEFT_OUT]))
        return path
    except Exception as error:  # the hub's errors share no base class: offline, not found, gated, disk full
        reason = " ".join(str(error).split())[:200]
        raise BackendError(
            f"Model {model!r} is no local folder and could not be fetched from the hub ({reason}); give OVAM_MODEL a "
            "folder, 'embedded', or check the network."
        ) from error
