"""``ovam-labeler verify``: for whoever holds real weights, and perhaps a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from ovam_labeler.cli.common import out, progress_bar
from ovam_labeler.errors import BadRequestError

if TYPE_CHECKING:
    from ovam_labeler.verification.results import Results


def verify(
    model: str = typer.Option(
        "embedded", "--model", metavar="PATH", help="`embedded`, a diffusers folder or a hub name."
    ),
    out_file: Path = typer.Option(Path("ovam-verify.json"), "--out", metavar="FILE", help="The file to post back."),
    device: str = typer.Option("auto", "--device", help="`auto`, `cpu`, `cuda` or `cuda:N`."),
    image: list[Path] = typer.Option(
        [], "--image", metavar="FILE", help="An image of your own to read; may be repeated."
    ),
    scenes: int = typer.Option(2, "--scenes", min=0, max=8, help="Shipped scenes, which also have a mask to fit."),
    steps: int = typer.Option(
        0, "--steps", min=0, max=200, help="Also read at so many steps (30 in the paper): one UNet pass each."
    ),
    epochs: int = typer.Option(10, "--epochs", min=2, max=5000, help="Epochs of the paper's optimiser."),
    generate: str = typer.Option(
        "", "--generate", metavar="PROMPT", help="Also generate an image, twice, and compare."
    ),
) -> None:
    """Check and time a base model: maps against the plain formula, storage presets, token fits, one JSON to post back.

    Exit code 1 when a check fails.  The file holds machine, versions, the weights' fingerprint and figures; no paths, no
    names of yours, no pixels.
    """
    if not scenes and not image:
        raise BadRequestError("There is nothing to read: give --image, or --scenes of at least 1.")
    from ovam_labeler.verification.run import Plan, Verification

    plan = Plan(model, device, scenes, tuple(image), steps, epochs, generate)
    with progress_bar("Verifying") as progress:
        results = Verification(plan, progress).run()
    try:
        results.write(out_file)
    except OSError as error:
        raise BadRequestError(f"--out {out_file} cannot be written: {error.strerror or error}.") from error
    _print(results)
    out.print(f"Written to {out_file}; please post it back.", markup=False, highlight=False, soft_wrap=True)
    if not results.ok:
        raise typer.Exit(1)


def _print(results: Results) -> None:
    figures = results.figures
    table = Table("check", "", "worst", "limit", "times", box=None)
    for name in dict.fromkeys(check.name for check in results.checks):
        same = [check for check in results.checks if check.name == name]
        worst = max((check.value for check in same if check.value is not None), default=None)
        table.add_row(
            name,
            "[green]ok[/]" if all(check.ok for check in same) else "[red]FAIL[/]",
            "" if worst is None else f"{worst:.1e}",
            "" if same[0].limit is None else f"{same[0].limit:.1e}",
            str(len(same)),
        )
    out.print(table)
    for check in results.checks:
        if not check.ok:
            out.print(f"FAIL {check.name}: {check.sentence}", style="red", markup=False, highlight=False)
    sizes = Table("picture", "read", "preset", "MB", "error", "mask IoU", "1 class", "all classes", box=None)
    for image in figures["images"]:
        for place, part in ((image["name"], image), (f"{image['name']}, many steps", image.get("many_steps"))):
            for name, preset in (part or {}).get("presets", {}).items():
                sizes.add_row(
                    place,
                    f"{part['read_s']:.2f} s",
                    name,
                    f"{preset['bytes'] / 1e6:.2f}",
                    f"{preset['largest_error_of_range']:.1e}",
                    f"{preset['mask_iou_mean']:.3f}",
                    f"{1e3 * preset['one_class_s']:.1f} ms",
                    f"{1e3 * preset['all_classes_s']:.1f} ms",
                )
    out.print(sizes)
    for fit in figures["fits"]:
        paper, product = fit["paper"], fit["product"]
        out.print(
            f"fit on {fit['picture']}: {product['seconds']:.2f} s ({product['optimizer']}, {product['passes']} passes); the "
            f"paper's optimiser {paper['seconds_an_epoch']:.3f} s an epoch; IoU {fit['train_iou']['word']:.2f} of the word, "
            f"{fit['train_iou']['token']:.2f} of the token.",
            highlight=False,
        )
    if "generation" in figures:
        made = figures["generation"]
        out.print(
            f"generation: {made['without_capture_s']:.2f} s without, {made['with_capture_s']:.2f} s with its queries.",
            highlight=False,
        )
