"""Loads the diffusers pipeline that a reader runs.  The only module of the package that imports diffusers."""

from __future__ import annotations

from typing import Any

import torch

from backends.contract import BackendError
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.quiet import quiet


def load_pipeline(folder: ModelFolder, device: str) -> Any:
    """``StableDiffusionPipeline`` of a folder, safetensors only, without safety checker and text encoder.

    The UNet runs in float32 on a CPU and in float16 elsewhere; the VAE always in float32, because Stable Diffusion's
    overflows in float16 on some images.

    Raises:
        BackendError: weights are missing or do not fit the configuration.
    """
    _, variant = folder.weights("unet")
    folder.weights("vae")
    with quiet("transformers", "diffusers"):
        from diffusers import StableDiffusionPipeline

        try:
            pipeline = StableDiffusionPipeline.from_pretrained(
                str(folder.path),
                text_encoder=None,
                tokenizer=None,
                safety_checker=None,
                feature_extractor=None,
                image_encoder=None,
                requires_safety_checker=False,
                use_safetensors=True,
                local_files_only=True,
                variant=variant,
            )
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackendError(f"The pipeline in {folder.path} cannot be loaded: {reason}") from error
        pipeline.unet.to(device=device, dtype=torch.float32 if device == "cpu" else torch.float16)
        pipeline.vae.to(device=device, dtype=torch.float32)
    return pipeline
