"""Stage ``warm``: continue from a weights folder instead of from nothing.

Copies its autoencoder, tokenizer and text encoder into the run folder, and its UNet as the checkpoint ``unet-start.pt``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel

from .export import WEIGHTS
from .sources import run_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    weights, folder = parser.parse_args().weights, run_folder()
    shutil.copytree(weights / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    AutoencoderTiny.from_pretrained(weights / "vae", torch_dtype=torch.float32).save_pretrained(folder / "vae")
    text = CLIPTextModel.from_pretrained(weights / "text_encoder", dtype=torch.float32)
    text.save_pretrained(folder / "text_encoder")
    unet = UNet2DConditionModel.from_pretrained(weights / "unet", torch_dtype=torch.float32)
    scalars = json.loads((weights / "ovam.json").read_text())["training"]
    state = {f"net.unet.{n}": w for n, w in unet.state_dict().items()}
    state |= {f"text.{n}": w for n, w in text.state_dict().items()}
    state["net.log_steps"] = torch.tensor(scalars["steps"]).log()
    state["net.log_gain"] = torch.tensor(scalars["gain"]).log()
    torch.save({"average": state}, folder / "unet-start.pt")
    print(f"{folder / 'unet-start.pt'}: {len(state)} tensors of {weights}")


if __name__ == "__main__":
    main()
