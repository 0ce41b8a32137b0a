"""Backend ``embedded``: the small diffusion model this distribution ships, loaded as any user's folder is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backends.contract import Backend, BackendError, Progress
from backends.diffusion.loading import load_folder
from backends.diffusion.model_folder import INDEX, ModelFolder

NAME = "embedded"
#: A diffusers pipeline folder with ``ovam.json`` beside ``model_index.json``.
WEIGHTS = Path(__file__).parent / "weights"


def accepts(model: str) -> bool:
    """Only the word ``embedded``."""
    return model == NAME


def load(model: str = NAME, device: str = "cpu", progress: Progress | None = None) -> Backend:
    """Load the embedded model.

    Raises:
        BackendError: another model is named, or the weights are not beside the code.
    """
    if not accepts(model):
        raise BackendError(
            f"The embedded backend loads 'embedded' only, not {model!r}; leave OVAM_BACKEND unset for others."
        )
    if not (WEIGHTS / INDEX).is_file():
        raise BackendError(f"The embedded model's weights are missing from {WEIGHTS}; install the distribution again.")
    folder = ModelFolder.open(str(WEIGHTS), progress)
    if "name" not in folder.settings:
        folder = replace(folder, name=NAME)
    return load_folder(folder, NAME, device, progress)
