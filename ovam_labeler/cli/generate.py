"""``ovam-labeler generate``: make images and keep their queries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ovam_labeler.cli.common import application, out, print_json, progress_bar
from ovam_labeler.errors import BadRequestError

if TYPE_CHECKING:
    from ovam_labeler.generating import GenerateWish


def _stem(prompt: str, seed: int) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "image"
    return f"{words}.{seed}"


def generate(
    prompts: list[str] = typer.Argument(..., metavar="PROMPT...", help="One or more prompts."),
    out_dir: Path | None = typer.Option(
        None, "--out", metavar="DIR", help="Folder for the PNG files, made when missing; default: the current one."
    ),
    project: str = typer.Option(
        "",
        "--project",
        metavar="CONNECTION/ID",
        help="Upload the images as tasks of this labeling project instead; an ID alone is of the default connection.",
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
    size: str = typer.Option("", "--size", metavar="WIDTHxHEIGHT", help="In pixels; default: the model's."),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="With --project: follow the jobs to their end."),
    json_output: bool = typer.Option(False, "--json", help="Print what was made as JSON."),
) -> None:
    """Generate images; predict later answers for them from the recorded queries, without running the UNet again.

    The same prompt, seed and settings give the same file, byte for byte.  Each image's prompt and seed are kept in the
    store, so that an evicted capture can be made again.

    With --project each image is a durable job: a running server does them, else this command.  Prompt, seed and scheduler
    are in the task's data.  Asked for again, what is there is left alone.
    """
    from ovam_labeler.generating import GenerateWish, read_size

    wish = GenerateWish(tuple(prompts), seed, count, steps, guidance, negative_prompt, read_size(size))
    if project:
        if out_dir is not None:
            raise BadRequestError("--out and --project exclude each other: the images are uploaded to the project.")
        from ovam_labeler.cli.generate_tasks import generate_tasks

        generate_tasks(project, wish, wait=wait, json_output=json_output)
        return
    _generate_files(wish, out_dir or Path("."), json_output)


def _generate_files(wish: GenerateWish, out_dir: Path, json_output: bool) -> None:
    made: list[dict[str, Any]] = []
    pictures = wish.pictures()
    total = len(pictures)
    options = wish.options()
    if wish.size is not None:
        options["size"] = wish.size
    with application() as app, progress_bar("Loading the model", quiet=json_output) as progress:
        from backends.contract import Needs

        out_dir.mkdir(parents=True, exist_ok=True)
        for k, picture in enumerate(pictures):
            prompt, seed = picture["prompt"], picture["seed"]

            def on_step(fraction: float, message: str, done: int = k, text: str = prompt) -> None:
                progress((done + fraction) / total, f"Image {done + 1} of {total}: {text[:40]}")

            image, png, capture = app.inference.generate(prompt, seed=seed, needs=Needs(), progress=on_step, **options)
            path = out_dir / f"{_stem(prompt, seed)}.png"
            path.write_bytes(png)
            made.append(
                {
                    "image": str(path),
                    "prompt": prompt,
                    "seed": seed,
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
