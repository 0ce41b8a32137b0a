"""``ovam-labeler predict``: masks of named classes for image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image

from ovam_labeler.cli.common import CONNECTION, PROJECT, application, err, out, print_json, progress_bar, scope_of
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions, Proposal
from ovam_labeler.errors import BadRequestError, OvamError

#: Distinct colours for overlays, in label order (Okabe-Ito, readable with colour blindness).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def encode_label(label: str) -> str:
    """A label as part of a file name: verbatim, only ``/``, ``\\`` and NUL percent-encoded."""
    return label.replace("/", "%2F").replace("\\", "%5C").replace("\0", "%00")


def mask_path(folder: Path, image: Path, label: str) -> Path:
    return folder / f"{image.stem}.{encode_label(label)}.png"


def plan_outputs(images: Sequence[Path], labels: Sequence[str], folder: Path) -> None:
    """Refuse before any work what would overwrite itself or cannot be a file name."""
    if any(not name.strip() for name in labels):
        raise BadRequestError("--label is empty; give the class's name.")
    seen: dict[str, tuple[Path, str]] = {}
    for image in images:
        for label in labels:
            path = mask_path(folder, image, label)
            if len(path.name.encode()) > 255:
                raise BadRequestError(
                    f"--label {label[:40]!r}... is too long: the mask's file name may have 255 bytes at most."
                )
            key = path.name
            if key in seen:
                other, name = seen[key]
                raise BadRequestError(
                    f"{other} ({name!r}) and {image} ({label!r}) would both write {path}; predict them into different folders."
                )
            seen[key] = (image, label)


def overlay(image: LoadedImage, proposals: Sequence[Proposal]) -> np.ndarray:
    """uint8 (H, W, 3): each mask in the colour of its label's place, see :func:`ovam_labeler.drawing.class_overlay`."""
    from ovam_labeler.drawing import class_overlay

    colours = [COLOURS[k % len(COLOURS)] for k in range(len(proposals))]
    return class_overlay(image.pixels, [p.mask for p in proposals], colours)


def write_outputs(
    image: LoadedImage, path: Path, proposals: Sequence[Proposal], folder: Path, with_overlay: bool
) -> list[dict[str, Any]]:
    rows = []
    for proposal in proposals:
        target = mask_path(folder, path, proposal.label)
        Image.fromarray(proposal.mask.astype(np.uint8) * 255).save(target)
        rows.append(
            {
                "label": proposal.label,
                "mask": str(target),
                "present": proposal.present,
                "presence": round(proposal.presence, 4),
                "score": round(proposal.score, 4),
                "area": round(float(proposal.mask.mean()), 6),
                "source": proposal.source,
                "token_version": proposal.token_version,
            }
        )
    if with_overlay:
        # JPEG, so that it can never take the name of a mask of a label called "overlay".
        Image.fromarray(overlay(image, proposals)).save(folder / f"{path.stem}.overlay.jpg", quality=92)
    return rows


def predict(
    images: list[Path] = typer.Argument(..., metavar="IMAGE...", help="Image files."),
    label: list[str] = typer.Option(..., "--label", help="A class to look for; repeat for several.", metavar="NAME"),
    out_dir: Path = typer.Option(..., "--out", help="Folder for the masks, made when missing.", metavar="DIR"),
    json_output: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
    no_presence: bool = typer.Option(
        False, "--no-presence", help="Skip the judgement whether the class is there at all."
    ),
    with_overlay: bool = typer.Option(False, "--overlay", help="Also write DIR/<image stem>.overlay.jpg."),
    prompt: str = typer.Option("", "--prompt", help="Text that describes the images; conditions the reading pass."),
    overlap: str = typer.Option("", "--overlap", help="exclusive or independent; default: OVAM_OVERLAP."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
) -> None:
    """Write DIR/<image stem>.<label>.png for every image and label: 0/255, the image's own size.

    A mask is all zero when the class is judged absent.  A bad image is reported, the others are still done; the exit
    code is then 2.
    """
    labels = list(dict.fromkeys(label))
    images = list(dict.fromkeys(images))
    plan_outputs(images, labels, out_dir)
    if overlap not in ("", "exclusive", "independent"):
        raise BadRequestError(f"--overlap is {overlap!r}; allowed are exclusive and independent.")
    scope = scope_of(connection, project)
    results: list[dict[str, Any]] = []
    failed = 0
    with application() as app, progress_bar("Loading the model", quiet=json_output) as progress:
        from ovam_labeler.application import translate_errors
        from ovam_labeler.image_source import load_image

        out_dir.mkdir(parents=True, exist_ok=True)
        settings = app.settings
        options = ProjectOptions(
            method=settings.method,
            refiner=settings.refiner,
            overlap=overlap or settings.overlap,  # type: ignore[arg-type]
            presence=not no_presence,
        )
        for k, path in enumerate(images):
            progress(k / len(images), f"Predicting {path.name}")
            try:
                with translate_errors():
                    image = load_image(path, settings)
                    proposals = app.proposer.propose(
                        image, [Label(name) for name in labels], scope, options, prompt=prompt
                    )
                    rows = write_outputs(image, path, proposals, out_dir, with_overlay)
            except OvamError as error:
                failed += 1
                results.append({"image": str(path), "error": {"code": error.code, "message": str(error)}})
                if not json_output:
                    err.print(f"error: {path}: {error}", style="red", markup=False, highlight=False)
                continue
            results.append({"image": str(path), "width": image.width, "height": image.height, "masks": rows})
    if json_output:
        print_json({"images": results})
    else:
        _print_table(results)
    if failed:
        raise typer.Exit(2)


def _print_table(results: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("image", "label", "present", "presence", "area", "from")
    table.add_column("mask", overflow="fold")
    for result in results:
        for row in result.get("masks", []):
            source = row["source"] if row["token_version"] is None else f"token v{row['token_version']}"
            cells = (
                Path(result["image"]).name,
                row["label"],
                "yes" if row["present"] else "no",
                f"{row['presence']:.2f}",
                f"{100 * row['area']:.1f} %",
                source,
                row["mask"],
            )
            from rich.text import Text

            table.add_row(*(Text(c) for c in cells))
    if table.row_count:
        out.print(table)
