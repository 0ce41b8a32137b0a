"""What a token sees in an image, beside what its word and its parent see: heat maps and masks in one picture."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backends.attention.presence import presence_features, presence_probability
from backends.contract import Progress
from ovam_labeler.domain import Label, LoadedImage
from ovam_labeler.errors import BadRequestError
from ovam_labeler.options import project_options
from ovam_labeler.propose import decide, find_method, find_refiner, logits_of
from ovam_labeler.services import Application
from ovam_labeler.translate import translate_errors
from ovam_labeler.vocabulary import Meaning
from token_store.contract import NotFoundError
from token_store.entities import TokenVersion

#: Width or height of a drawn image at most, in pixels; space between and around; height of a line of text.
_SIDE, _GAP, _LINE = 360, 14, 22
_INK, _PAPER, _TINT = (24, 24, 27), (250, 250, 250), np.array((255, 64, 129), np.float32)
#: From little to much attention: dark blue, purple, red, orange, light yellow (readable in grey, and with colour blindness).
_HEAT = np.array([(12, 8, 60), (92, 20, 110), (187, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


@dataclass(frozen=True, slots=True)
class Panel:
    """One way to ask for the class.

    Attributes:
        title: ``"word"``, ``"parent v1"`` or ``"token v2"``.
        heat: float32 (h, w) in 0..1, as Eq. 5 gives it.
        mask: bool (H, W) of the image's size, drawn as if the class were present.
        presence: probability 0..1 that the class is in the image.
        version: number of the token version; None for the word.
    """

    title: str
    heat: np.ndarray
    mask: np.ndarray
    presence: float
    version: int | None


def panels_of(
    app: Application,
    image: LoadedImage,
    token: TokenVersion,
    *,
    prompt: str = "",
    progress: Progress | None = None,
) -> list[Panel]:
    """The word, the token's parent where there is one of this model, and the token, from one reading of the image.

    Raises:
        BadRequestError: the token belongs to another base model.
        OvamError: the image cannot be read or the model not be loaded.
    """
    attributor = app.backend().attributor
    space = attributor.fingerprint.space
    if token.fingerprint.get("space") != space:
        raise BadRequestError(
            f"Version {token.number} of {token.class_name!r} was learned in the base model "
            f"{token.fingerprint.get('model') or 'unknown'!r}; this is {attributor.fingerprint.model!r}."
        )
    options = project_options(app.settings, app.store.get_project_options(token.scope))
    options = replace(options, overlap="independent", presence=False)
    method, refiner = find_method(options.method), find_refiner(options.refiner)
    label = Label(token.class_name)
    with translate_errors():
        meanings = [Meaning(label, attributor.words(label.name), "word")]
        parent = _parent(app, token)
        for version in (parent, token):
            if version is not None and version.fingerprint.get("space") == space:
                meanings.append(Meaning(label, attributor.token(version.embedding), "token", version))
        if progress is not None:
            progress(0.3, "Reading the image")
        needs = method.needs(attributor)
        capture = app.inference.submit(image, needs, prompt=prompt).result()
        queries = [m.query for m in meanings]
        maps = method.maps(attributor, capture, queries).detach().float().cpu()
        features = presence_features(maps, logits_of(attributor, capture, queries) if needs.queries else None)
        proposals = decide(image, maps, features, meanings, attributor.calibration, options, refiner)
    found = []
    for meaning, heat, feature, proposal in zip(meanings, maps.numpy(), features, proposals, strict=True):
        weights = attributor.calibration
        number = None if meaning.version is None else meaning.version.number
        title = "word" if number is None else f"{'token' if meaning.version is token else 'parent'} v{number}"
        presence = presence_probability(feature, weights.word_presence if number is None else weights.token_presence)
        found.append(Panel(title, heat, proposal.mask, float(presence), number))
    return found


def draw(pixels: np.ndarray, panels: Sequence[Panel], path: Path) -> None:
    """Write a PNG: the image, then a column a panel with its heat map above its mask.

    Args:
        pixels: uint8 (H, W, 3).

    Raises:
        BadRequestError: the file cannot be written.
    """
    scale = _SIDE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    width = _GAP + (len(panels) + 1) * (size[0] + _GAP)
    height = _GAP + 2 * (_LINE + size[1] + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    below = _GAP + _LINE + size[1] + _GAP
    pen.text((_GAP, _GAP), "image", fill=_INK, font=font)
    sheet.paste(picture, (_GAP, _GAP + _LINE))
    for column, panel in enumerate(panels, start=1):
        left = _GAP + column * (size[0] + _GAP)
        low, high = float(panel.heat.min()), float(panel.heat.max())
        pen.text((left, _GAP), f"{panel.title}   map {low:.2f} to {high:.2f}", fill=_INK, font=font)
        sheet.paste(_heat(picture, panel.heat), (left, _GAP + _LINE))
        caption = f"presence {panel.presence:.2f}   mask {100 * float(panel.mask.mean()):.1f} %"
        pen.text((left, below), caption, fill=_INK, font=font)
        sheet.paste(_masked(picture, panel.mask), (left, below + _LINE))
    _legend(sheet, pen, font, (_GAP, below + _LINE), size)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(temporary, "PNG")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadRequestError(f"{path} cannot be written: {error.strerror or error}.") from error


def _parent(app: Application, token: TokenVersion) -> TokenVersion | None:
    if token.parent_version is None:
        return None
    try:
        return app.store.get_version(token.scope, token.class_name, token.parent_version)
    except NotFoundError:  # collected as garbage since
        return None


def _heat(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """The map, least to most attention, over the faded image."""
    low, high = float(heat.min()), float(heat.max())
    relative = (heat - low) / max(high - low, 1e-9)
    soft = np.asarray(Image.fromarray(relative.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR))
    place = soft.clip(0, 1)[..., None] * (len(_HEAT) - 1)
    first = np.minimum(place.astype(int), len(_HEAT) - 2)
    colour = _HEAT[first[..., 0]] + (place - first) * (_HEAT[first[..., 0] + 1] - _HEAT[first[..., 0]])
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    return Image.fromarray((0.72 * colour + 0.28 * grey).clip(0, 255).astype(np.uint8))


def _masked(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """The mask tinted, everything else faded."""
    inside = np.asarray(Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST))[..., None]
    values = np.asarray(picture, np.float32)
    grey = values.mean(axis=2, keepdims=True)
    return Image.fromarray(
        np.where(inside, 0.45 * values + 0.55 * _TINT, 0.6 * grey + 70).clip(0, 255).astype(np.uint8)
    )


def _legend(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    at: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """What the colours mean, in the room below the image."""
    wide = min(size[0], 220)
    ramp = np.tile(np.linspace(0, 1, wide, dtype=np.float32), (14, 1))
    blank = Image.new("RGB", (wide, 14), (128, 128, 128))
    sheet.paste(_heat(blank, ramp), at)
    for line, text in enumerate(("above: least to most attention,", "each map by itself", "below: the mask, in pink")):
        pen.text((at[0], at[1] + 18 + line * _LINE), text, fill=_INK, font=font)
