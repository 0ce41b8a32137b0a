"""How the embedded model was made: one module per stage, ``python -m backends.diffusion.tiny.training.<stage>``."""
