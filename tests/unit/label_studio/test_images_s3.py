"""Images in S3, read by the real s3fs from moto's server."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from protocol_helpers import data_uri

from ovam_labeler.errors import BadImageError, FetchError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient

IMAGE = base64.b64decode(data_uri().split(",", 1)[1])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket with one picture and one that is no picture but large."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "of-this-test",
        "AWS_SECRET_ACCESS_KEY": "of-this-test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="pictures")
        s3.put_object(Bucket="pictures", Key="a/snail.png", Body=IMAGE)
        s3.put_object(Bucket="pictures", Key="a/large.png", Body=bytes(200_000))
        yield "pictures"
    finally:
        server.stop()


def client(**settings: object) -> LabelStudioClient:
    return LabelStudioClient(Settings(_env_file=None, **settings))  # type: ignore[arg-type]


def test_pictures_are_read_and_what_cannot_be_is_one_sentence(bucket: str) -> None:
    reader = client(image_stores=f"s3://{bucket}/a", max_image_bytes=100_000)
    assert reader.fetch_image(f"s3://{bucket}/a/snail.png") == IMAGE
    with pytest.raises(BadImageError, match="larger than 100000 bytes"):
        reader.fetch_image(f"s3://{bucket}/a/large.png")
    with pytest.raises(FetchError, match="does not exist"):
        reader.fetch_image(f"s3://{bucket}/a/none.png")
    for outside in (f"s3://{bucket}/b/snail.png", f"s3://{bucket}/a/../b.png", "s3://other/a/snail.png"):
        with pytest.raises(FetchError, match="may not name"):
            reader.fetch_image(outside)
