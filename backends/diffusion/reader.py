"""Reader of Stable Diffusion pipelines: received images (VAE, noise, one UNet pass a step) and generated ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from backends.attention.presets import preset_named
from backends.attention.queries import kept
from backends.contract import BackendError, Capture, CaptureInfo, Generated, Needs, Progress, ReadRequest
from backends.diffusion import sizes
from backends.diffusion.calibration import ReadDefaults
from backends.diffusion.capture import CONDITIONAL, Recorder
from backends.diffusion.text import TextEncoder

#: Features are kept in half precision; queries as the preset of the needs says.
RECORDED = torch.float16

#: Bounds of one UNet batch: images, and pixels of all of them together (four of Stable Diffusion's 512 x 512), so that
#: memory stays that of a guided batch of generation twice over.
MOST_IMAGES, MOST_PIXELS = 8, 4 * 512 * 512


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

    def capture(
        self, image: np.ndarray, needs: Needs, *, prompt: str = "", seed: int = 0, progress: Progress | None = None
    ) -> Capture:
        """Read a received image, see :meth:`backends.contract.Reader.capture`.

        The noise of a step depends on the seed and the step only, so a step's queries are the same whichever other
        steps are read.
        """
        return self.capture_many([ReadRequest(image, prompt, seed)], needs, progress=progress)[0]

    @torch.no_grad()
    def capture_many(
        self, requests: Sequence[ReadRequest], needs: Needs, *, progress: Progress | None = None
    ) -> list[Capture]:
        """Read received images, those of one size in batches; see :meth:`backends.contract.BatchReader.capture_many`.

        Each image's noise and conditioning are its own, so a batch differs from single reads by the rounding of larger
        matrix products alone (queries differ by at most a few steps of half precision).
        """
        timesteps = self._timesteps(needs)
        for request in requests:
            sizes.check_image(request.image)
        # All prompts before the first pass: one that is too long must not cost the others theirs.
        conditionings = [self._conditioning(request.prompt) for request in requests]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(self._read_size(request.image), []).append(index)
        found: dict[int, Capture] = {}
        for size, group in groups.items():
            most = max(1, min(MOST_IMAGES, MOST_PIXELS // (size[0] * size[1])))
            for first in range(0, len(group), most):
                batch = group[first : first + most]
                part = _part(progress, len(found) / len(requests), len(batch) / len(requests))
                captures = self._read(
                    [requests[k] for k in batch],
                    torch.cat([conditionings[k] for k in batch]),
                    size,
                    timesteps,
                    needs,
                    part,
                )
                found.update(zip(batch, captures, strict=True))
        return [found[index] for index in range(len(requests))]

    def _read(
        self,
        requests: Sequence[ReadRequest],
        conditioning: torch.Tensor,
        size: tuple[int, int],
        timesteps: tuple[int, ...],
        needs: Needs,
        progress: Progress | None,
    ) -> list[Capture]:
        """One batch of images of one size: one UNet pass a step."""
        alphas, unet = self._alphas(), self._pipeline.unet
        _report(progress, 0.0, "Encoding the image." if len(requests) == 1 else f"Encoding {len(requests)} images.")
        clean = torch.cat([self._encode(sizes.resized(request.image, size)) for request in requests])
        latent_size = (clean.shape[2], clean.shape[3])
        preset = preset_named(needs.preset)
        with Recorder(
            unet,
            needs,
            latent_size,
            half=CONDITIONAL,
            images=len(requests),
            dtype=RECORDED,
            packed_as=preset.dtype_of(preset.kept(len(timesteps))),
            group_of=lambda index: preset.group_of(index, len(timesteps)),
            affinity=needs.queries and self._defaults.spread,
        ) as recorder:
            for done, step in enumerate(timesteps):
                _report(progress, done / len(timesteps), f"Reading step {done + 1} of {len(timesteps)}.")
                noise = [
                    torch.randn(clean[:1].shape, generator=_generator(r.seed * 1_000_003 + step)) for r in requests
                ]
                kept = float(alphas[step])
                noisy = kept**0.5 * clean + (1 - kept) ** 0.5 * torch.cat(noise)
                unet(
                    noisy.to(device=unet.device, dtype=unet.dtype),
                    torch.tensor(step, device=unet.device),
                    encoder_hidden_states=conditioning,
                    return_dict=False,
                )
        _report(progress, 1.0, "The image is read." if len(requests) == 1 else "The images are read.")
        return [
            self._finish(
                recorder,
                needs,
                clean[index],
                index,
                origin="received",
                image_size=(int(request.image.shape[0]), int(request.image.shape[1])),
                latent_size=latent_size,
                prompt=request.prompt,
                seed=request.seed,
                steps=len(timesteps),
                cfg_half=CONDITIONAL,
            )
            for index, request in enumerate(requests)
        ]

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
        preset = preset_named(needs.preset)
        if self._defaults.groups is not None:
            preset = replace(preset, groups=min(self._defaults.groups, preset.groups or self._defaults.groups))

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
            packed_as=preset.dtype_of(preset.kept(steps)),
            group_of=lambda index: preset.group_of(index, len(pipeline.scheduler.timesteps)),
            affinity=needs.queries and self._defaults.spread,
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
            latents[0].float().cpu(),
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

    def _finish(self, recorder: Recorder, needs: Needs, latents: torch.Tensor, image: int = 0, **info: Any) -> Capture:
        """The capture of one image of a finished recording.

        Args:
            latents: (C, h, w) float32 on the CPU, noiseless, scaled as the UNet was trained.
            image: its number in the batch.
        """
        tensors: dict[str, torch.Tensor] = {}
        layout: dict[str, Any] = {}
        if needs.queries:
            found, described = kept(recorder.bundle(image), preset_named(needs.preset))
            tensors.update(found)
            layout.update(described)
            if self._defaults.spread:
                affinity = recorder.affinity(image)
                tensors.update(affinity.to_tensors())
                layout.update(affinity.layout())
        if needs.self_attention:
            received = recorder.received(image)
            tensors.update(received.to_tensors())
            layout.update(received.layout())
        if needs.features:
            features = recorder.features(image)
            tensors.update(features.to_tensors())
            layout.update(features.layout())
        if needs.latents:
            tensors["latents"] = latents.clone()
            layout["latents"] = {"scaling_factor": float(self._pipeline.vae.config.scaling_factor)}
        layout["preset"] = needs.preset
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

    def _read_size(self, image: np.ndarray) -> tuple[int, int]:
        """(height, width) at which an image is read."""
        native = self.native_size
        side = self._defaults.side or round((native[0] * native[1]) ** 0.5)
        return sizes.read_size((image.shape[0], image.shape[1]), side, self._multiple)

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


def _part(progress: Progress | None, start: float, width: float) -> Progress | None:
    """A callback whose 0..1 is a part of another's."""
    return None if progress is None else lambda fraction, sentence: progress(start + width * fraction, sentence)


def _report(progress: Callable[[float, str], None] | None, fraction: float, sentence: str) -> None:
    if progress is not None:
        progress(fraction, sentence)
