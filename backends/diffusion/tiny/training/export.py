"""Stage ``export``: the newest checkpoint as a Stable Diffusion pipeline folder in half precision.

``StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)`` loads it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .autoencoder import load_autoencoder
from .grounding import make_unet
from .library import Library
from .sources import ATTRIBUTION, run_folder
from .vocabulary import ANYTHING, known_names

WEIGHTS = Path(__file__).parent.parent / "weights"
NAME, VERSION, MOST_BYTES = "ovam-tiny", 6, 25_000_000
READ_SIDE = 288  # chosen on validation concepts, see the model card
# A new class starts half-way between "thing" and its word; a known word's token stays close to the word (ridge). Chosen
# on validation concepts: without the ridge one-shot tokens lose .06 of IoU, between .001 and .01 nothing changes.
# L-BFGS reaches the loss of 100 passes of Adam in about 14, with the same IoU on validation scenes.
TOKEN_RECIPE: dict[str, Any] = {
    "optimizer": "lbfgs",
    "start": "thing_noun",
    "epochs": 100,
    "learning_rate": 0.1,
    "ridge": 0.002,
    "balance": True,
}
WORD_RECIPE = TOKEN_RECIPE | {"start": "noun", "ridge": 0.03}
CHECKPOINTS = (
    "unet-painter.pt",
    "unet-meaning.pt",
    "unet-finer.pt",
    "unet-tokens.pt",
    "unet-words.pt",
    "unet-start.pt",
)  # newest first


def newest_checkpoint(average: Path | None = None, names: Sequence[str] = CHECKPOINTS) -> dict[str, Any]:
    """The moving average of the last of the phases that has a checkpoint; or the one that ``gpu`` left as safetensors."""
    if average is not None:
        return {"average": {name: value.float() for name, value in load_file(average).items()}}
    for name in names:
        if (path := run_folder() / name).exists():
            return torch.load(path, weights_only=True)
    raise FileNotFoundError(f"no checkpoint in {run_folder()}; run the unet stage first")


def trained_models(state: dict[str, Any]) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """UNet and text encoder with a checkpoint's averaged weights."""
    unet = make_unet()
    text = CLIPTextModel.from_pretrained(run_folder() / "text_encoder")
    if (table := state["average"].get("text.embeddings.token_embedding.weight")) is not None:
        text.resize_token_embeddings(len(table), mean_resizing=False)  # stage ``meaning`` adds words
    for prefix, model in (("net.unet.", unet), ("text.", text)):
        own = {n.removeprefix(prefix): w for n, w in state["average"].items() if n.startswith(prefix)}
        missing, unexpected = model.load_state_dict(own, strict=False)
        frozen = {n for n in missing if not n.endswith(("token_embedding.weight", "position_ids"))}
        if frozen or unexpected:
            raise ValueError(f"checkpoint does not fit {prefix}: missing {frozen}, unexpected {unexpected}")
    return unet.eval(), text.eval()


def write_folder(target: Path, settings: dict[str, Any], state: dict[str, Any]) -> int:
    """Write the pipeline folder; returns its size in bytes. The old content is replaced only when all is written."""
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
    return {"known_words": sorted({*known_names(library), *ANYTHING}), **library.split}


def default_settings(previous: Path, state: dict[str, Any]) -> dict[str, Any]:
    """``ovam.json``: the recipes below, and the thresholds and presence weights that ``previous`` has, if it is there.

    Those belong to the weights they were measured on: run ``python -m ovam_labeler.evaluation.calibrate --write`` on the
    exported folder, as its own message says.
    """
    scalars = state["average"]
    calibration: dict[str, Any] = {"word_threshold": 0.425, "token_threshold": 0.525}
    if previous.exists():
        calibration = json.loads(previous.read_text(encoding="utf-8"))["calibration"]
    return {
        "name": NAME,
        "version": VERSION,
        "image_size": 128,
        "layers": "down+up",
        "attribution": {"template": "{label}", "context": "pair", "thing": "thing"},
        "read": {"timesteps": [50], "prompt": "", "side": READ_SIDE, "spread": True},
        "training": {"steps": scalars["net.log_steps"].exp().tolist(), "gain": float(scalars["net.log_gain"].exp())},
        "generate": {"steps": 20, "guidance": 3.0, "size": [128, 128]},
        "calibration": calibration | {"word_recipe": WORD_RECIPE, "token_recipe": TOKEN_RECIPE},
    }


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
    parser.add_argument("--average", type=Path, help="average.safetensors of the gpu stage, instead of a checkpoint")
    arguments = parser.parse_args()
    target, state = arguments.target, newest_checkpoint(arguments.average)
    settings = default_settings((target if (target / "ovam.json").exists() else WEIGHTS) / "ovam.json", state)
    print(write_folder(target, settings, state), "bytes in", target)
    if target == WEIGHTS and (made := run_folder() / ATTRIBUTION).exists():
        shutil.copy(made, WEIGHTS.parent / "DATA_ATTRIBUTION.csv")
    print(f"now: python -m ovam_labeler.evaluation.calibrate --model {target} --write {target / 'ovam.json'}")


if __name__ == "__main__":
    main()
