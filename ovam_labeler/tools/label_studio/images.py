"""Fetches the images that tasks name, bounded in size and time."""

from __future__ import annotations

import base64
import binascii
import time
from urllib.parse import unquote_to_bytes, urljoin

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from ovam_labeler.errors import BadImageError, FetchError
from ovam_labeler.tools.label_studio import network
from ovam_labeler.tools.label_studio.connection import Connection
from ovam_labeler.tools.label_studio.images_stored import fetch_stored, is_stored

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_CHUNK = 1 << 16


class ImageFetcher:
    """Fetches images through one connection.  Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._url = connection.url
        self._settings = connection.settings

    def fetch(self, reference: str) -> bytes:
        """The bytes of an image as a task names it.

        Args:
            reference: a path on Label Studio (``/data/upload/...``, ``/data/local-files/?d=...``), an http(s) URL, an
                ``s3://`` or ``gs://`` address within ``OVAM_IMAGE_STORES``, or a ``data:`` URI.

        Raises:
            FetchError: says why and what to do.
            BadImageError: larger than ``OVAM_MAX_IMAGE_BYTES``, or a broken ``data:`` URI.
        """
        if reference.startswith("data:"):
            return self._from_data_uri(reference)
        if reference.startswith("/") and not reference.startswith("//"):
            if self._url is None:
                raise FetchError(
                    f"The image {_short(reference)} lies on Label Studio, whose address is not set; set "
                    "OVAM_LABEL_STUDIO_URL and OVAM_LABEL_STUDIO_TOKEN."
                )
            reference = self._url + reference
        if is_stored(reference):
            return fetch_stored(reference, self._settings)
        if not reference.startswith(("http://", "https://")):
            scheme = reference.split(":", 1)[0] if ":" in reference[:12] else ""
            what = f"'{scheme}:' addresses are not read" if scheme else "it is neither a path of Label Studio nor a URL"
            raise FetchError(
                f"The image {_short(reference)} cannot be fetched: {what}; use http(s), s3, gs or an upload."
            )
        return self._download(reference)

    def _from_data_uri(self, reference: str) -> bytes:
        limit = self._settings.max_image_bytes
        if len(reference) > 2 * limit:
            raise BadImageError(
                f"The image in the task is larger than {limit} bytes, the most allowed (OVAM_MAX_IMAGE_BYTES)."
            )
        header, comma, body = reference.partition(",")
        if not comma:
            raise BadImageError("The image in the task is a data: URI without data.")
        try:
            data = base64.b64decode(body, validate=True) if header.endswith(";base64") else unquote_to_bytes(body)
        except (binascii.Error, ValueError) as error:
            raise BadImageError("The image in the task is a data: URI with broken base64.") from error
        if len(data) > limit:
            raise BadImageError(
                f"The image in the task is larger than {limit} bytes, the most allowed (OVAM_MAX_IMAGE_BYTES)."
            )
        return data

    def _download(self, url: str) -> bytes:
        deadline = time.monotonic() + self._settings.fetch_timeout
        renewed = False
        for _ in range(_MAX_REDIRECTS + 1):
            own = network.origin_of(url) == self._connection.origin
            headers = {"Accept-Encoding": "identity", **(self._connection.credentials.header() if own else {})}
            with self._open(url, headers, deadline) as answer:
                if answer.status_code in _REDIRECTS and answer.headers.get("Location"):
                    url = urljoin(url, answer.headers["Location"])
                    continue
                if answer.status_code == 401 and own and not renewed and self._connection.credentials.renew():
                    renewed = True
                    continue
                if answer.status_code != 200:
                    raise self._refusal(url, answer.status_code, own)
                return self._body(url, answer, deadline)
        raise FetchError(f"The image {_short(url)} is redirected more than {_MAX_REDIRECTS} times.")

    def _open(self, url: str, headers: dict[str, str], deadline: float) -> requests.Response:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._late(url)
        try:
            return self._connection.session().get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=left
            )
        except requests.Timeout as error:
            raise self._late(url) from error
        except (requests.RequestException, ValueError) as error:
            if time.monotonic() >= deadline:
                raise self._late(url) from error
            raise FetchError(f"The image {_short(url)} cannot be fetched: its host is not reachable.") from error

    def _body(self, url: str, answer: requests.Response, deadline: float) -> bytes:
        limit = self._settings.max_image_bytes
        parts: list[bytes] = []
        size = 0
        try:
            # read1 gives what has come; iter_content would wait for a full block and outwait the deadline.
            while part := answer.raw.read1(_CHUNK, decode_content=True):
                size += len(part)
                if size > limit:
                    raise BadImageError(
                        f"The image {_short(url)} is larger than {limit} bytes, the most allowed (OVAM_MAX_IMAGE_BYTES)."
                    )
                if time.monotonic() > deadline:
                    raise self._late(url)
                parts.append(part)
        except ReadTimeoutError as error:
            raise self._late(url) from error
        except HTTPError as error:
            raise FetchError(f"The image {_short(url)} broke off after {size} bytes.") from error
        return b"".join(parts)

    def _late(self, url: str) -> FetchError:
        return FetchError(
            f"The image {_short(url)} did not come within {self._settings.fetch_timeout:g} s; raise OVAM_FETCH_TIMEOUT if "
            "its host is slow."
        )

    def _refusal(self, url: str, status: int, own: bool) -> FetchError:
        if status in (401, 403) and own:
            return FetchError(f"The image {_short(url)} is refused ({status}). {self._connection.token_advice()}")
        if status in (401, 403):
            return FetchError(
                f"The image {_short(url)} is refused ({status}); credentials are sent to OVAM_LABEL_STUDIO_URL only, which "
                f"is {self._url or 'not set'}."
            )
        return FetchError(
            f"The image {_short(url)} is not there (HTTP {status}); its host answers, the file does not exist."
        )


def _short(reference: str) -> str:
    """An image reference for a sentence: without query values, which may hold signatures, and not endless."""
    shown = reference.split("?", 1)[0] + ("?..." if "?" in reference else "")
    return f"'{shown}'" if len(shown) <= 120 else f"'{shown[:117]}...'"
