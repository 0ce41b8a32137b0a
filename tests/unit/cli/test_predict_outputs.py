"""File names, refusals and pictures of ``predict`` and the mask reader of ``learn``; no model needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ovam_labeler.cli.learn import read_mask
from ovam_labeler.cli.predict import encode_label, mask_path, overlay, plan_outputs
from ovam_labeler.domain import LoadedImage, Proposal
from ovam_labeler.errors import BadMaskError, BadRequestError


@given(st.text(min_size=1, max_size=40))
def test_label_is_verbatim_but_for_three_characters(label: str) -> None:
    encoded = encode_label(label)
    assert not set("/\\\0") & set(encoded)
    if not set("/\\\0") & set(label):
        assert encoded == label


def test_label_with_spaces_and_dots_keeps_its_name(tmp_path: Path) -> None:
    assert mask_path(tmp_path, Path("a/img.v2.jpg"), "teddy bear.") == tmp_path / "img.v2.teddy bear..png"
    assert mask_path(tmp_path, Path("x.png"), "either/or") == tmp_path / "x.either%2For.png"


@pytest.mark.parametrize(
    ("images", "labels", "needle"),
    [
        (["a/x.png", "b/x.jpg"], ["cat"], "both write"),
        (["x.png"], ["a/b", "a%2Fb"], "both write"),
        (["x.png"], ["cat", " "], "--label is empty"),
        (["x.png"], ["c" * 300], "too long"),
    ],
)
def test_outputs_that_would_be_lost_are_refused(
    tmp_path: Path, images: list[str], labels: list[str], needle: str
) -> None:
    with pytest.raises(BadRequestError, match=needle):
        plan_outputs([Path(i) for i in images], labels, tmp_path)


@pytest.mark.parametrize("ground", [(100, 100, 100), (230, 159, 0), (150, 90, 40), (0, 0, 0), (255, 255, 255)])
def test_an_overlay_is_seen_on_any_ground(ground: tuple[int, int, int]) -> None:
    """On the label's own colour, too, and on brown, where orange was hard to see."""
    image = LoadedImage(np.full((12, 14, 3), ground, np.uint8), "0" * 64)
    mask = np.zeros((12, 14), bool)
    mask[4:8, 4:10] = True
    proposal = Proposal("cat", mask, np.zeros((2, 2), np.float32), 1.0, True, 1.0, "word")
    picture = overlay(image, [proposal]).astype(int)
    assert picture.shape == (12, 14, 3)
    assert (picture[3, 4:10] == 255).all() and (picture[2, 4:10] == 0).all(), "white beside the mask, black around it"
    outside = picture[0, 0]
    assert (picture[mask] == picture[4, 4]).all() and (picture[0] == outside).all()
    red, _, blue = picture[4, 4]
    assert red - blue > 80, "in the label's colour whatever the picture's is"


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA-opaque", "RGBA-alpha", "P", "I;16", "zero-one"])
def test_masks_of_every_kind_mean_the_same(tmp_path: Path, mode: str) -> None:
    truth = np.zeros((6, 9), bool)
    truth[1:4, 2:7] = True
    grey = Image.fromarray(truth.astype(np.uint8) * 255)
    match mode:
        case "RGBA-opaque":
            image = grey.convert("RGBA")
        case "RGBA-alpha":
            image = Image.new("RGBA", grey.size, (200, 0, 0, 255))
            image.putalpha(grey)
        case "P":
            image = Image.fromarray(truth.astype(np.uint8), "P")
            image.putpalette([0, 0, 0, 128, 0, 0])
        case "I;16":
            image = Image.fromarray(truth.astype(np.uint16) * 65535)
        case "zero-one":
            image = Image.fromarray(truth.astype(np.uint8))
        case _:
            image = grey.convert(mode)
    path = tmp_path / "mask.png"
    image.save(path)
    assert (read_mask(path, 10_000) == truth).all()


def test_bad_masks_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"\x89PNG nonsense")
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    for name, needle in (("no.png", "cannot be read"), ("missing.png", "does not exist"), ("large.png", "at most 100")):
        with pytest.raises(BadMaskError, match=needle) as caught:
            read_mask(tmp_path / name, 100)
        assert "\n" not in str(caught.value)
