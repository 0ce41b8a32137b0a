"""``ovam-labeler generate``: make images and keep their queries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from ovam_labeler.cli.common import application, out, print_json, progress_bar
from ovam_labeler.errors import BadRequestError


def _stem(prompt: str, seed: int) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "image"
    return f"{words}.{seed}"


def generate(
    prompts: list[str] = typer.Argument(..., metavar="PROMPT...", help="One or more prompts."),
    out_dir: Path = typer.Option(
        Path("."), "--out", metavar="DIR", help="Folder for the PNG files, made when missing."
    ),
    seed: int = typer.Option(
        0, "--seed", min=0, max=2**63 - 1, help="Seed of the first image; the next ones count up."
    ),
    count: int = typer.Option(1, "--count", min=1, max=10_000, help="Images a prompt."),
    steps: int | None = typer.Option(None, "--steps", min=1, max=1000, help="Denoising steps; default: the model's."),
    guidance: float | None = typer.Option(
        None, "--guidance", min=0, max=100, help="Classifier-free guidance; default: the model's."
    ),
    negative_prompt: str = typer.Option("", "--negative-prompt", help="What the image should not be."),
    json_output: bool = typer.Option(False, "--json", help="Print what was made as JSON."),
) -> None:
    """Generate images; predict later answers for them from the recorded queries, without running the UNet again.

    The same prompt, seed and settings give the same file, byte for byte.  Each image's prompt and seed are kept in the
    store, so that an evicted capture can be made again.
    """
    if any(not prompt.strip() for prompt in prompts):
        raise BadRequestError("PROMPT is empty; say what the image shows.")
    made: list[dict[str, Any]] = []
    total = len(prompts) * count
    with application() as app, progress_bar("Loading the model", quiet=json_output) as progress:
        from backends.contract import Needs

        out_dir.mkdir(parents=True, exist_ok=True)
        options = {
            k: v
            for k, v in {"steps": steps, "guidance": guidance, "negative_prompt": negative_prompt}.items()
            if v not in (None, "")
        }
        for k, (prompt, number) in enumerate((p, n) for p in prompts for n in range(count)):

            def on_step(fraction: float, message: str, done: int = k, text: str = prompt) -> None:
                progress((done + fraction) / total, f"Image {done + 1} of {total}: {text[:40]}")

            image, png, capture = app.inference.generate(
                prompt, seed=seed + number, needs=Needs(), progress=on_step, **options
            )
            path = out_dir / f"{_stem(prompt, seed + number)}.png"
            path.write_bytes(png)
            made.append(
                {
                    "image": str(path),
                    "prompt": prompt,
                    "seed": seed + number,
                    "sha256": image.sha256,
                    "width": image.width,
                    "height": image.height,
                    "steps": capture.info.steps,
                }
            )
    if json_output:
        print_json({"images": made})
    else:
        for row in made:
            out.print(
                f"{row['image']}  (seed {row['seed']}, {row['width']} x {row['height']})", markup=False, highlight=False
            )
