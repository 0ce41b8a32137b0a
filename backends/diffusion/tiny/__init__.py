"""The embedded model: a latent diffusion model in Stable Diffusion's form, trained by this project."""

from __future__ import annotations

from backends.contract import BackendSpec
from backends.diffusion.tiny.loader import accepts, load

SPEC = BackendSpec(
    name="embedded",
    description="The small diffusion model shipped with OVAM Labeler; needs no download and no GPU.",
    accepts=accepts,
    load=load,
)
