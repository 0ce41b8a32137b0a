"""Builds a Stable Diffusion pipeline of random tiny weights in a folder, in the forms users have.

The UNet has four blocks (16, 32, 32, 32 channels) as Stable Diffusion has; ``to_k`` is enlarged so that attention is not
flat, as in tests/golden.  The tokenizer is saved as the published Stable Diffusion repositories have it
(``vocab.json`` and ``merges.txt``).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "of", "the", "on", "cat", "dog", "photograph", "thing", "beach")
LIMIT = 24


def build(folder: Path, *, vae: str = "kl", prediction: str = "epsilon", seed: int = 0, **settings: Any) -> Path:
    """Write a pipeline into ``folder``.

    Args:
        vae: ``"kl"`` (AutoencoderKL) or ``"tiny"`` (AutoencoderTiny), both of factor 8.
        prediction: of the scheduler.
        settings: ``ovam.json``; none = no such file.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder.mkdir(parents=True)
    parts = folder.parent / f"{folder.name}-tokenizer"
    size = write_tokenizer(parts)
    torch.manual_seed(seed)
    if vae == "kl":
        autoencoder: Any = AutoencoderKL(
            block_out_channels=(4, 4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=2,
            layers_per_block=1,
        )
    else:
        autoencoder = AutoencoderTiny(
            encoder_block_out_channels=(4,) * 4,
            decoder_block_out_channels=(4,) * 4,
            num_encoder_blocks=(1,) * 4,
            num_decoder_blocks=(1,) * 4,
        )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.endswith("attn2.to_k.weight"):
                weight.mul_(25)
            if name.endswith(("attn1.to_k.weight", "attn1.to_q.weight")):
                weight.mul_(4)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LIMIT,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
            pad_token_id=size - 1,
        )
    )
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(parts),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    shutil.rmtree(folder / "tokenizer")
    shutil.move(parts, folder / "tokenizer")
    if settings:
        (folder / "ovam.json").write_text(json.dumps(settings))
    return folder


def write_tokenizer(folder: Path) -> int:
    """``vocab.json`` and ``merges.txt`` of a byte-level BPE that knows :data:`WORDS` whole; returns the vocabulary's size."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = f"{parts[0]} {parts[1]}"
            parts[:2] = [parts[0] + parts[1]]
            if pair not in merges:
                merges.append(pair)
            vocabulary.append(parts[0])
    vocabulary = list(dict.fromkeys([*vocabulary, "<|startoftext|>", "<|endoftext|>"]))
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": LIMIT,
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )
    return len(vocabulary)
