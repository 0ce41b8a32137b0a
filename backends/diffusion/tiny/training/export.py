"""Stage ``export``: the newest checkpoint as a Stable Diffusion pipeline folder in half precision.

``StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)`` loads it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .autoencoder import load_autoencoder
from .grounding import make_unet
from .library import Library
from .sources import run_folder
from .vocabulary import ANYTHING, MOST_NAMES

WEIGHTS = Path(__file__).parent.parent / "weights"
NAME, VERSION, MOST_BYTES = "ovam-tiny", 1, 25_000_000
CHECKPOINTS = ("unet-finer.pt", "unet-tokens.pt", "unet-words.pt")  # newest first


def newest_checkpoint() -> dict[str, Any]:
    """The moving average of the last phase that has a checkpoint, and its scalars."""
    for name in CHECKPOINTS:
        if (path := run_folder() / name).exists():
            return torch.load(path, weights_only=True)
    raise FileNotFoundError(f"no checkpoint in {run_folder()}; run the unet stage first")


def trained_models(state: dict[str, Any]) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """UNet and text encoder with a checkpoint's averaged weights."""
    unet = make_unet()
    text = CLIPTextModel.from_pretrained(run_folder() / "text_encoder")
    for prefix, model in (("net.unet.", unet), ("text.", text)):
        own = {n.removeprefix(prefix): w for n, w in state["average"].items() if n.startswith(prefix)}
        missing, unexpected = model.load_state_dict(own, strict=False)
        frozen = {n for n in missing if not n.endswith(("token_embedding.weight", "position_ids"))}
        if frozen or unexpected:
            raise ValueError(f"checkpoint does not fit {prefix}: missing {frozen}, unexpected {unexpected}")
    return unet.eval(), text.eval()


def write_folder(target: Path, settings: dict[str, Any]) -> int:
    """Write the pipeline folder; returns its size in bytes. The old content is replaced only when all is written."""
    state = newest_checkpoint()
    unet, text = trained_models(state)
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    _write_model(fresh / "unet", "UNet2DConditionModel", unet.config, unet.state_dict(), "diffusion_pytorch_model")
    autoencoder = load_autoencoder()
    _write_model(
        fresh / "vae", "AutoencoderTiny", autoencoder.config, autoencoder.state_dict(), "diffusion_pytorch_model"
    )
    # Older transformers know the encoder's weights under this prefix, newer ones under both.
    prefixed = {f"text_model.{n}": w for n, w in text.state_dict().items() if not n.endswith("position_ids")}
    _write_model(
        fresh / "text_encoder",
        "CLIPTextModel",
        text.config.to_dict() | {"architectures": ["CLIPTextModel"], "dtype": "float32"},
        prefixed,
        "model",
    )
    PreTrainedTokenizerFast.from_pretrained(run_folder() / "tokenizer").save_pretrained(fresh / "tokenizer")
    config = fresh / "tokenizer/tokenizer_config.json"
    _write_json(config, json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"})
    DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="leading",
    ).save_pretrained(fresh / "scheduler")
    _write_json(
        fresh / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": diffusers.__version__,
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderTiny"],
        },
    )
    _write_json(fresh / "ovam.json", settings)
    _write_json(fresh / "split.json", shipped_split())
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise ValueError(f"{fresh} has {size} bytes; at most {MOST_BYTES} may be shipped")
    old = target.with_name(target.name + ".old")
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return size


def shipped_split() -> dict[str, Any]:
    """The split with every name that training used."""
    library = Library()
    names = [
        n.lower()
        for c in library.base
        for n in list(dict.fromkeys([library.labels[c], *library.concepts[c]["names"]]))[:MOST_NAMES]
    ]
    return {"known_words": sorted({*names, *ANYTHING}), **library.split}


def default_settings() -> dict[str, Any]:
    """``ovam.json`` with the values measured by the ``calibrate`` stage, where it has run."""
    scalars = newest_checkpoint()["average"]
    settings: dict[str, Any] = {
        "name": NAME,
        "version": VERSION,
        "image_size": 128,
        "layers": "down+up",
        "attribution": {"template": "{label}", "context": "pair", "thing": "thing"},
        # Read at 224 pixels a side: measured on validation scenes of 320 pixels, a token gains 7 points of IoU over 128.
        "read": {"timesteps": [50], "prompt": "", "side": 224},
        "training": {"steps": scalars["net.log_steps"].exp().tolist(), "gain": float(scalars["net.log_gain"].exp())},
        "generate": {"steps": 20, "guidance": 3.0, "size": [128, 128]},
    }
    measured = run_folder() / "calibration.json"
    if measured.exists():
        settings["calibration"] = json.loads(measured.read_text())
    else:
        recipe = {"optimizer": "adam", "epochs": 100, "learning_rate": 0.1, "start": "thing_noun", "balance": True}
        settings["calibration"] = {
            "word_threshold": 0.4,
            "token_threshold": 0.4,
            "token_recipe": recipe,
            "word_recipe": recipe | {"learning_rate": 0.03, "epochs": 30, "start": "noun"},
        }
    return settings


def _write_model(folder: Path, class_name: str, config: Any, weights: dict[str, Tensor], name: str) -> None:
    folder.mkdir(parents=True)
    half = {key: value.detach().to(torch.float16).contiguous() for key, value in weights.items()}
    save_file(half, folder / f"{name}.safetensors", metadata={"format": "pt"})
    plain = {k: v for k, v in dict(config).items() if not k.startswith("_")}
    if class_name == "AutoencoderTiny":
        plain.pop("block_out_channels")  # diffusers derives it and warns if it is given
    if name.startswith("diffusion"):
        plain = {"_class_name": class_name, "_diffusers_version": diffusers.__version__, **plain}
    _write_json(folder / "config.json", plain)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=list) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=WEIGHTS)
    target = parser.parse_args().target
    print(write_folder(target, default_settings()), "bytes in", target)


if __name__ == "__main__":
    main()
