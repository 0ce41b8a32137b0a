"""Reader of Stable Diffusion pipelines: received images (VAE, noise, one UNet pass a step) and generated ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from backends.contract import BackendError, Capture, CaptureInfo, Generated, Needs, Progress
from backends.diffusion import sizes
from backends.diffusion.calibration import ReadDefaults
from backends.diffusion.capture import CONDITIONAL, Recorder
from backends.diffusion.text import TextEncoder

#: Recorded queries are kept in half precision: heat maps then differ by less than 4e-5 from full precision.
RECORDED = torch.float16


class StableDiffusionReader:
    """Runs a Stable Diffusion pipeline; implements :class:`backends.contract.Reader`.  Not thread-safe.

    Args:
        pipeline: a ``StableDiffusionPipeline`` without text encoder (the attributor's is shared) and safety checker.
        text: tokenizer and text encoder.
        defaults: of reading and generation.
        settings: what shapes a capture, for cache keys.
        model: name recorded in captures.
        half: the half of a guided batch whose queries are kept.
    """

    def __init__(
        self,
        pipeline: Any,
        text: TextEncoder,
        defaults: ReadDefaults,
        settings: Mapping[str, Any],
        model: str,
        half: str = CONDITIONAL,
    ) -> None:
        self._pipeline = pipeline
        self._text = text
        self._defaults = defaults
        self._settings = dict(settings)
        self._model = model
        self._half = half
        self._passes = 0
        self._factor = int(pipeline.vae_scale_factor)
        self._multiple = self._factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.unet.register_forward_hook(self._count)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._settings

    @property
    def unet_passes(self) -> int:
        return self._passes

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the model was trained at."""
        size = self._pipeline.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * self._factor, width * self._factor

    @torch.no_grad()
    def capture(
        self, image: np.ndarray, needs: Needs, *, prompt: str = "", seed: int = 0, progress: Progress | None = None
    ) -> Capture:
        """Read a received image, see :meth:`backends.contract.Reader.capture`.

        The noise of a step depends on the seed and the step only, so a step's queries are the same whichever other
        steps are read.
        """
        sizes.check_image(image)
        timesteps = self._timesteps(needs)
        alphas = self._alphas()
        conditioning = self._conditioning(prompt)
        native = self.native_size
        side = self._defaults.side or round((native[0] * native[1]) ** 0.5)
        size = sizes.read_size((image.shape[0], image.shape[1]), side, self._multiple)
        _report(progress, 0.0, "Encoding the image.")
        clean = self._encode(sizes.resized(image, size))
        unet = self._pipeline.unet
        latent_size = (clean.shape[2], clean.shape[3])
        with Recorder(unet, needs, latent_size, half=CONDITIONAL, dtype=RECORDED) as recorder:
            for done, step in enumerate(timesteps):
                _report(progress, done / len(timesteps), f"Reading step {done + 1} of {len(timesteps)}.")
                noise = torch.randn(clean.shape, generator=_generator(seed * 1_000_003 + step))
                kept = float(alphas[step])
                noisy = kept**0.5 * clean + (1 - kept) ** 0.5 * noise
                unet(
                    noisy.to(device=unet.device, dtype=unet.dtype),
                    torch.tensor(step, device=unet.device),
                    encoder_hidden_states=conditioning,
                    return_dict=False,
                )
        _report(progress, 1.0, "The image is read.")
        return self._finish(
            recorder,
            needs,
            origin="received",
            image_size=(int(image.shape[0]), int(image.shape[1])),
            latent_size=latent_size,
            prompt=prompt,
            seed=seed,
            steps=len(timesteps),
            cfg_half=CONDITIONAL,
        )

    @torch.no_grad()
    def generate(
        self,
        prompt: str,
        needs: Needs,
        *,
        seed: int,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        size: tuple[int, int] | None = None,
        progress: Progress | None = None,
    ) -> Generated:
        """Generate an image and record it on the way, see :meth:`backends.contract.Reader.generate`.

        Raises:
            PromptTooLongError: a prompt exceeds the text encoder's length.
            BackendError: a size the VAE cannot make, or fewer than one step.
        """
        steps = self._defaults.steps if steps is None else steps
        guidance = self._defaults.guidance if guidance is None else float(guidance)
        height, width = size or self._defaults.size or self.native_size
        self._check(height, width, steps, guidance)
        pipeline = self._pipeline
        # A fresh scheduler: some keep state from one image to the next.
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        guided = guidance > 1 and pipeline.unet.config.time_cond_proj_dim is None
        latent_size = (height // self._factor, width // self._factor)
        groups = self._defaults.groups

        def group_of(index: int) -> int:
            return index * min(groups or 1, len(pipeline.scheduler.timesteps)) // len(pipeline.scheduler.timesteps)

        def stepped(_pipeline: Any, index: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            total = len(pipeline.scheduler.timesteps)
            _report(progress, (index + 1) / (total + 1), f"Generating: step {index + 1} of {total}.")
            return values

        with Recorder(
            pipeline.unet,
            needs,
            latent_size,
            half=self._half,
            guided=guided,
            dtype=RECORDED,
            group_of=None if groups is None else group_of,
        ) as recorder:
            latents = pipeline(
                prompt_embeds=self._conditioning(prompt),
                negative_prompt_embeds=self._conditioning(negative_prompt) if guided else None,
                height=height,
                width=width,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=_generator(seed),
                output_type="latent",
                return_dict=False,
                callback_on_step_end=stepped,
            )[0]
        vae = pipeline.vae
        decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        _report(progress, 1.0, "The image is generated.")
        capture = self._finish(
            recorder,
            needs,
            origin="generated",
            image_size=(height, width),
            latent_size=latent_size,
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            guidance=guidance,
            steps=steps,
            cfg_half=self._half,
        )
        return Generated(sizes.to_image(decoded), capture)

    def _finish(self, recorder: Recorder, needs: Needs, **info: Any) -> Capture:
        """The capture of a finished recording."""
        tensors: dict[str, torch.Tensor] = {}
        layout: dict[str, Any] = {}
        if needs.queries:
            bundle = recorder.bundle()
            tensors.update(bundle.to_tensors())
            layout.update(bundle.layout())
        if needs.self_attention:
            received = recorder.received()
            tensors.update(received.to_tensors())
            layout.update(received.layout())
        layout["dtype"] = str(RECORDED).removeprefix("torch.")
        scheduler = type(self._pipeline.scheduler).__name__
        timesteps = tuple(recorder.timesteps)
        return Capture(
            CaptureInfo(timesteps=timesteps, scheduler=scheduler, model=self._model, layout=layout, **info), tensors
        )

    def _count(self, *_: object) -> None:
        self._passes += 1

    def _conditioning(self, prompt: str) -> torch.Tensor:
        """(1, tokens, E) on the UNet's device."""
        unet = self._pipeline.unet
        return self._text.conditioning(prompt)[None].to(device=unet.device, dtype=unet.dtype)

    def _encode(self, image: np.ndarray) -> torch.Tensor:
        """(1, C, h, w) float32 latents on the CPU, scaled as the UNet was trained; the mode, so nothing is drawn."""
        vae = self._pipeline.vae
        encoded = vae.encode(sizes.to_tensor(image).to(device=vae.device, dtype=vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents.float().cpu() * float(vae.config.scaling_factor)

    def _alphas(self) -> torch.Tensor:
        alphas = getattr(self._pipeline.scheduler, "alphas_cumprod", None)
        if alphas is None:
            name = type(self._pipeline.scheduler).__name__
            raise BackendError(
                f"Scheduler {name} has no alphas_cumprod; received images need a noise schedule of that kind."
            )
        return alphas

    def _timesteps(self, needs: Needs) -> tuple[int, ...]:
        timesteps = self._defaults.timesteps if needs.timesteps is None else needs.timesteps
        most = int(self._pipeline.scheduler.config.num_train_timesteps) - 1
        if not timesteps or any(not 0 <= step <= most for step in timesteps):
            raise BackendError(f"Timesteps {tuple(timesteps)} were asked for; one or more of 0..{most} are needed.")
        return tuple(timesteps)

    def _check(self, height: int, width: int, steps: int, guidance: float) -> None:
        if height < self._factor or width < self._factor or height % self._factor or width % self._factor:
            raise BackendError(
                f"Size {height} x {width} cannot be generated; both must be multiples of {self._factor}."
            )
        most = int(self._pipeline.scheduler.config.num_train_timesteps)
        if not 1 <= steps <= most:
            raise BackendError(f"steps is {steps}; 1..{most} is allowed.")
        if not 0 <= guidance < float("inf"):
            raise BackendError(f"guidance is {guidance}; a finite number of at least 0 is needed.")


def _generator(seed: int) -> torch.Generator:
    """Always on the CPU, so that equal seeds give equal noise on every device."""
    return torch.Generator("cpu").manual_seed(seed % (1 << 63))


def _report(progress: Callable[[float, str], None] | None, fraction: float, sentence: str) -> None:
    if progress is not None:
        progress(fraction, sentence)
