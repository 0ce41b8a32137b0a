"""Before and after on corrected pictures."""

from __future__ import annotations

import io
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from colour_model import ColourModel, box
from pages_helpers import SCOPE, Visitor, correction, learn, mask_of
from PIL import Image

from ovam_labeler.application import OvamApplication
from token_store.entities import NewTokenVersion


def pictures(visitor: Visitor, **query: object) -> list[dict[str, str | None]]:
    return visitor.get("/pages/pictures", scope="default/2", name="brick", **query).all("img")


def loaded(visitor: Visitor, image: dict[str, str | None]) -> np.ndarray:
    response = visitor.raw(str(image["src"]))
    assert response.status_code == 200 and response.mimetype == "image/webp"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    with Image.open(io.BytesIO(response.data)) as opened:
        assert opened.format == "WEBP"
        return np.asarray(opened.convert("RGB"))


def test_word_parent_and_version_beside_the_human_s_mask(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, "brick", 8)
    learn(application, "brick", 30)
    page = visitor.get("/pages/pictures", scope="default/2", name="brick", version=2)
    images = page.all("img")
    shows = [parse_qs(urlsplit(str(a["src"])).query)["show"][0] for a in images]
    assert shows == ["truth", "word", "parent", "version"] * 2
    assert "version 2 learned from it" in page.text
    first = visitor.get("/pages/pictures", scope="default/2", name="brick", version=1)
    assert "not seen by version 1" in first.text and "version 1 learned from it" in first.text
    # The token finds the red box of the newest correction, at 30 pixels from the left, and its figure says so.
    drawn = mask_of(loaded(visitor, images[3]))
    truth = box(16, 30, 32, 32)
    assert (drawn & truth).sum() / (drawn | truth).sum() > 0.6
    for image in images:
        assert loaded(visitor, image).shape == (64, 96, 3)
        assert image.get("alt") and image.get("width") == "96" and image.get("height") == "64"


def test_the_fragment_for_htmx_is_only_the_strips(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, "brick", 8)
    response = visitor.client.get(
        "/pages/pictures?scope=default/2&name=brick&version=1", headers={"HX-Request": "true"}
    )
    assert response.text.lstrip().startswith('<div id="strips">') and "<html" not in response.text


def test_a_negative_correction_has_no_figure_but_what_is_painted(
    visitor: Visitor, application: OvamApplication
) -> None:
    from token_store.entities import CorrectionMask

    learn(application, "brick", 8)
    taught = application.store.list_corrections(SCOPE)[0]
    nothing = np.zeros((64, 96), dtype=bool)
    stored = correction(application, labels=("brick",), payload=dict(taught.payload))
    application.store.put_correction_masks([CorrectionMask(stored.id, "brick", "negative", nothing, nothing)])
    application.store.set_correction_state(stored.id, "learned", image_sha256=taught.image_sha256)
    page = visitor.get("/pages/pictures", scope="default/2", name="brick", version=1)
    assert "the human: it is not here" in page.text and "painted" in page.text


def test_a_token_of_another_model_is_not_drawn(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, "brick", 8)
    application.store.add_version(
        SCOPE,
        "brick",
        NewTokenVersion({"space": "other", "model": "sd-x"}, np.ones((2, 4), np.float32), {}, {}),
    )
    page = visitor.get("/pages/pictures", scope="default/2", name="brick", version=2)
    assert "was learned in another base model (sd-x)" in page.text
    assert len(page.all("img")) == 2  # the human's mask and the word's


def test_a_picture_that_is_gone_is_one_sentence(visitor: Visitor, application: OvamApplication) -> None:
    learn(application, "brick", 8)
    for file in (application.settings.data_dir / "images").iterdir():
        file.unlink()
    page = visitor.get("/pages/pictures", scope="default/2", name="brick", version=1)
    assert "is gone from" in page.text and not page.all("img")


def test_a_second_look_reads_nothing_again(visitor: Visitor, application: OvamApplication, model: ColourModel) -> None:
    learn(application, "brick", 8)
    passes = model.reader.unet_passes
    for _ in range(2):
        for image in pictures(visitor, version=1):
            loaded(visitor, image)
    assert model.reader.unet_passes == passes  # all of it from the cached capture


def test_while_the_model_loads_the_page_says_so(application: OvamApplication) -> None:
    learn(application, "brick", 8)
    page = Visitor(application, state="loading", message="The base model is being loaded.").get(
        "/pages/pictures", scope="default/2", name="brick", version=1
    )
    assert "The base model is being loaded." in page.text and not page.all("img")


@pytest.mark.parametrize(
    "query",
    [
        {"correction": "1", "show": "version", "name": "other"},
        {"correction": "1", "show": "../../etc/passwd", "name": "brick"},
        {"correction": "../1", "show": "truth", "name": "brick"},
        {"correction": "1", "show": "", "name": "brick"},
        {"correction": "1", "show": "parent", "name": "brick"},
        {"correction": "1", "show": "truth", "name": "brick", "scope": "default/3"},
        {"show": "truth", "name": "brick"},
    ],
)
def test_a_picture_that_does_not_exist(visitor: Visitor, application: OvamApplication, query: dict[str, str]) -> None:
    learn(application, "brick", 8)
    response = visitor.raw("/pages/picture", **{"scope": "default/2", **query})
    assert response.status_code in (400, 404) and response.mimetype == "text/html"
