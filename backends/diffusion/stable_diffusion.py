"""Backend ``stable-diffusion``: Stable Diffusion 1.x and 2.x from a local diffusers folder or a hub name."""

from __future__ import annotations

from backends.contract import Backend, BackendSpec, Progress
from backends.diffusion.loading import load_folder
from backends.diffusion.model_folder import ModelFolder, accepts


def load(model: str, device: str = "cpu", progress: Progress | None = None) -> Backend:
    """Load a model folder or hub name.

    Raises:
        BackendError: it is missing, incomplete, or no Stable Diffusion pipeline.
    """
    return load_folder(ModelFolder.open(model, progress), "stable-diffusion", device, progress)


SPEC = BackendSpec(
    name="stable-diffusion",
    description="Stable Diffusion 1.x / 2.x from a diffusers folder or a hub name (safetensors).",
    accepts=accepts,
    load=load,
)
