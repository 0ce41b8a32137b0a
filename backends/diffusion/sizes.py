"""From images of any size and aspect to sizes a UNet takes, and back to numbers in -1..1.

A received image is brought to about the model's native *area* with its aspect kept, both sides rounded to multiples of
``multiple`` pixels (VAE factor x the UNet's halvings: 64 for Stable Diffusion).  Small images are enlarged.  A strip is
thickened to one multiple, so that its aspect is not kept exactly; maps are resized back to the image in any case.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from backends.contract import BackendError


def read_size(image_size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """(height, width) at which an image is read.

    Args:
        image_size: (height, width) of the image.
        side: side of the square whose area is aimed at, pixels.
        multiple: both sides are multiples of it.
    """
    height, width = image_size
    most = max(multiple, side * side // multiple)  # the longer side of a strip one multiple thin
    scale = math.sqrt(height / width)
    return _rounded(side * scale, multiple, most), _rounded(side / scale, multiple, most)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) image at (height, width), Lanczos with anti-aliasing.

    The whole resize works on bytes: a float copy of an 8000 x 8000 image would need 768 MB.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    # reducing_gap: a box filter first, never below three times the target, then Lanczos.
    made = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(made)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W) float32 in -1..1 of a uint8 (H, W, 3) image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_image(decoded: torch.Tensor) -> np.ndarray:
    """uint8 (H, W, 3) of a VAE's (1, 3, H, W) output in -1..1."""
    values = (decoded[0].float() / 2 + 0.5).clamp(0, 1).cpu().permute(1, 2, 0).numpy()
    return (values * 255).round().astype("uint8")


def check_image(image: np.ndarray) -> None:
    """Refuse what is no upright sRGB image in bytes.

    Raises:
        BackendError: naming shape and type.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise BackendError(f"The image is {what}; uint8 of shape (height, width, 3) is needed.")
    if not image.size:
        raise BackendError(f"The image of shape {image.shape} has no pixels.")


def _rounded(length: float, multiple: int, most: int) -> int:
    return min(max(multiple, round(length / multiple) * multiple), most // multiple * multiple)
