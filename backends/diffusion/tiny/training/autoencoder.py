"""Stage ``autoencoder``: train the picture autoencoder (f = 8, 16 latent channels) on crops of composed scenes."""

from __future__ import annotations

import argparse
import math
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock

from . import distributed
from .composer import compose
from .library import Library
from .sources import run_folder

LATENT_CHANNELS = 16
RATE, BATCH, CROP = 2e-3, 16, 64


def make_autoencoder() -> AutoencoderTiny:
    """Untrained autoencoder; small residual branches and orthogonal resizing train several times faster."""
    model = AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(0, 1, 2, 3),
        num_decoder_blocks=(3, 2, 2, 0),
        latent_channels=LATENT_CHANNELS,
        upsampling_scaling_factor=2,
    )
    for module in model.modules():
        if isinstance(module, AutoencoderTinyBlock):
            module.conv[-1].weight.data.mul_(0.1)
            module.conv[-1].bias.data.zero_()
        elif isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3) and module.bias is None:
            torch.nn.init.orthogonal_(module.weight, 1.4)
    return model


def load_autoencoder() -> AutoencoderTiny:
    """The trained autoencoder of this run, in eval mode."""
    return AutoencoderTiny.from_pretrained(run_folder() / "vae").eval().to(memory_format=torch.channels_last)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in -1..1."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.to(memory_format=torch.channels_last)


@torch.no_grad()
def encode(model: AutoencoderTiny, images: np.ndarray, fast: bool = True) -> np.ndarray:
    """Latents (B, 16, H/8, W/8) of uint8 images."""
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        return model.encoder(to_tensor(images)).float().numpy()


def _crops(library: Library, rng: np.random.Generator, rows: np.ndarray, stock: list[np.ndarray]) -> torch.Tensor:
    while len(stock) < BATCH:
        image, _ = compose([library.pixels[k] for k in rng.choice(rows, int(rng.integers(1, 5)))], rng)
        for _ in range(2):
            top, left = rng.integers(0, image.shape[0] - CROP + 1, 2)
            stock.append(image[top : top + CROP, left : left + CROP])
    rng.shuffle(stock)
    return to_tensor(np.stack([stock.pop() for _ in range(BATCH)]))


def worker(minutes: float) -> None:
    """Train for ``minutes`` (cosine rate), save as a diffusers folder, print the reconstruction quality."""
    rank, _ = distributed.join()
    torch.manual_seed(0)
    library, rng = Library(), np.random.default_rng(100 + rank)
    rows = np.concatenate([[k for _, k in library.train[c]] for c in library.base])
    model = make_autoencoder().to(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    stock: list[np.ndarray] = []
    begin, step = time.time(), 0
    while (done := distributed.mean_of((time.time() - begin) / (minutes * 60))) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * done)))
        x = _crops(library, rng, rows, stock)
        with torch.autocast("cpu", torch.bfloat16):
            z = model.encoder(x)
            y = model.decoder(z + 0.05 * torch.randn_like(z))
        y, z = y.float(), z.float()
        mse = F.mse_loss(y, x)
        unit = (z.mean((0, 2, 3)) ** 2).mean() + (z.std((0, 2, 3)) - 1).abs().mean()  # latents of unit size
        optimizer.zero_grad()
        (mse + 0.15 * F.l1_loss(y, x) + 1e-2 * unit).backward()
        distributed.average_gradients(parameters, 1.0)
        optimizer.step()
        step += 1
        if rank == 0 and step % 100 == 0:
            print(
                f"{step} {time.time() - begin:.0f}s psnr {-10 * math.log10(mse.item() / 4):.2f} zstd {z.std():.2f}",
                flush=True,
            )
    if rank == 0:
        model.eval().save_pretrained(run_folder() / "vae")
        _report(model, library, rows, step)


@torch.no_grad()
def _report(model: AutoencoderTiny, library: Library, rows: np.ndarray, step: int) -> None:
    rng = np.random.default_rng(5)
    images = np.stack([compose([library.pixels[k] for k in rng.choice(rows, 2)], rng)[0] for _ in range(48)])
    x = to_tensor(images)
    y = model.decoder(z := model.encoder(x)).clamp(-1, 1)
    psnr = np.mean([-10 * math.log10(((a - b) ** 2).mean().item() / 4) for a, b in zip(x, y, strict=True)])
    print(f"FINAL steps {step} psnr {psnr:.2f} latent mean {z.mean():.3f} std {z.std():.3f}")
    decoded = ((y[:10] + 1) * 127.5).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    sheet = np.concatenate([np.concatenate(list(images[:10]), 1), np.concatenate(list(decoded), 1)], 0)
    cv2.imwrite(str(run_folder() / "vae.png"), sheet[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=7)
    arguments = parser.parse_args()
    if distributed.is_worker():
        worker(arguments.minutes)
    else:
        distributed.start("backends.diffusion.tiny.training.autoencoder", ["--minutes", str(arguments.minutes)])


if __name__ == "__main__":
    main()
