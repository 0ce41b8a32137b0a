"""``ovam-labeler learn``: teach a class from one image and one mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer
from PIL import Image, UnidentifiedImageError

from ovam_labeler.cli.common import CONNECTION, PROJECT, application, out, print_json, progress_bar, scope_of
from ovam_labeler.cli.tokens_common import who
from ovam_labeler.cli.tokens_touched import active_number, predict_again
from ovam_labeler.errors import BadMaskError, BadRequestError
from token_store.entities import AliasChange
from token_store.registry_contract import ACTIVE


def read_mask(path: Path, max_pixels: int) -> np.ndarray:
    """A mask file as bool (H, W): on where the value is over 127, or 1 in a 0/1 file, or any index but 0 in a palette.

    Raises:
        BadMaskError: no readable image, or more pixels than allowed.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise BadMaskError(
                    f"MASK {path} has {image.width} x {image.height} pixels; at most {max_pixels} are allowed."
                )
            if image.mode == "P":
                return np.asarray(image) > 0
            if image.mode in ("LA", "RGBA") and np.asarray(image.getchannel("A")).min() < 255:
                values = np.asarray(image.getchannel("A"))
            elif image.mode.startswith(("I", "F")):
                values = np.asarray(image)
                return values > (values.max() / 2 if values.max() > 0 else 0)
            else:
                values = np.asarray(image.convert("L"))
    except FileNotFoundError:
        raise BadMaskError(f"MASK {path} does not exist.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadMaskError(f"MASK {path} cannot be read as an image: {error}.") from None
    return values > (0 if values.max() <= 1 else 127)


def learn(
    image: Path = typer.Argument(..., metavar="IMAGE", help="Image file."),
    mask: Path = typer.Argument(..., metavar="MASK", help="Mask of the class: the image's size, white = the class."),
    label: str = typer.Option(..., "--label", metavar="NAME", help="The class's name."),
    json_output: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
) -> None:
    """Learn a token for NAME from one mask, wait for it, print its figures.

    The token becomes active as `unproven` and is used by the next predict.  A known word's token starts at the word and
    is kept near it.
    """
    if not label.strip():
        raise BadRequestError("--label is empty; give the class's name.")
    scope = scope_of(connection, project)
    with application() as app, progress_bar("Loading the model", quiet=json_output) as progress:
        from ovam_labeler.image_source import load_image

        loaded = load_image(image, app.settings)
        pixels = read_mask(mask, app.settings.max_image_pixels)
        before = active_number(app.store, scope, label)
        result = app.learner.learn_mask(loaded, pixels, label, scope, created_by=who(), progress=progress)
        move = AliasChange(scope, label, ACTIVE, before, active_number(app.store, scope, label))
        touched = predict_again(app.store, [move])
    metrics = dict(result.metrics)
    if json_output:
        print_json(
            {
                "label": result.label,
                "version": result.version,
                "active": result.active,
                "reason": result.reason,
                "metrics": metrics,
                **touched.as_json(),
            }
        )
        return
    out.print(
        f"Learned {result.label!r}, version {result.version}: {'active' if result.active else 'not active'}.",
        markup=False,
        highlight=False,
    )
    out.print(result.reason, markup=False, highlight=False)
    for name in ("train_iou", "word_iou", "seconds", "examples", "epochs"):
        if isinstance(metrics.get(name), int | float):
            out.print(
                f"  {name:<10} {metrics[name]:.3f}"
                if isinstance(metrics[name], float)
                else f"  {name:<10} {metrics[name]}",
                highlight=False,
            )
    losses = metrics.get("losses")
    if isinstance(losses, list | tuple) and losses:
        out.print(f"  loss       {losses[0]:.4f} -> {min(losses):.4f} in {len(losses)} passes", highlight=False)
    touched.tell()
