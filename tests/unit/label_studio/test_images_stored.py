"""Images in S3 and Google Cloud Storage: what may be read, and what is said when it cannot be."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from protocol_helpers import data_uri

from ovam_labeler.errors import BadImageError, FetchError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient

IMAGE = base64.b64decode(data_uri().split(",", 1)[1])


class FakeStore(MemoryFileSystem):  # type: ignore[misc]
    """Stands in for S3 and Google's store; keeps what it was asked."""

    protocol = ("s3", "gs")
    store: ClassVar[dict[str, Any]] = {}
    cachable = False
    reads: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, *_: Any, **options: Any) -> None:
        assert options["config_kwargs"]["read_timeout"] > 0 if "config_kwargs" in options else options["timeout"] > 0
        super().__init__()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        self.reads.append((path, int(end or 0)))
        if "refused" in path:
            raise PermissionError("no")
        if "broken" in path:
            raise RuntimeError("Access key AKIAEXAMPLE is odd")
        if "slow" in path:
            time.sleep(1.5)
        return bytes(super().cat_file(path, start=start, end=end))


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeStore]]:
    for name in ("s3", "gs"):
        monkeypatch.setitem(_registry, name, FakeStore)
    FakeStore(timeout=1).pipe_file("/bucket/pictures/a.png", IMAGE)
    FakeStore.reads.clear()
    yield FakeStore
    FakeStore.store.clear()


def client(**settings: Any) -> LabelStudioClient:
    return LabelStudioClient(Settings(_env_file=None, **settings))


def test_images_in_allowed_buckets_are_read(stores: type[FakeStore]) -> None:
    fetcher = client(image_stores="s3://bucket/pictures/, gs://bucket")
    assert fetcher.fetch_image("s3://bucket/pictures/a.png") == IMAGE
    assert fetcher.fetch_image("gs://bucket/pictures/a.png") == IMAGE
    with pytest.raises(BadImageError, match="OVAM_MAX_IMAGE_BYTES"):
        client(image_stores="s3://bucket", max_image_bytes=10).fetch_image("s3://bucket/pictures/a.png")
    assert stores.reads[-1] == ("bucket/pictures/a.png", 11)


@pytest.mark.parametrize(
    "reference",
    [
        "s3://other/pictures/a.png",
        "s3://bucket/picturesque/a.png",
        "s3://bucket/a.png",
        "s3://bucket/pictures/../a.png",
        "s3://bucket//pictures/a.png",
        "s3://bucket/pictures",
        "gs://bucket/pictures/a.png",
    ],
)
def test_other_buckets_are_not_asked(stores: type[FakeStore], reference: str) -> None:
    with pytest.raises(FetchError, match="OVAM_IMAGE_STORES"):
        client(image_stores="s3://bucket/pictures,s3://,gs").fetch_image(reference)
    with pytest.raises(FetchError, match="OVAM_IMAGE_STORES"):
        client().fetch_image(reference)
    assert stores.reads == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("none", "not there"), ("refused", "credentials"), ("broken", "RuntimeError"), ("slow", "within 0.4 s")],
)
def test_what_a_store_refuses_is_one_sentence(stores: type[FakeStore], name: str, sentence: str) -> None:
    with pytest.raises(FetchError, match=sentence) as caught:
        client(image_stores="s3://bucket", fetch_timeout=0.4).fetch_image(f"s3://bucket/{name}.png")
    assert "AKIA" not in str(caught.value)


def test_a_store_without_its_package_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(FetchError, match=r"ovam-labeler\[gcs\]"):
        client(image_stores="gs://bucket").fetch_image("gs://bucket/a.png")
