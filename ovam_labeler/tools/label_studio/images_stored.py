"""Images in S3 and Google Cloud Storage, through fsspec (extras ``s3`` and ``gcs``).

They are read with this process's own cloud credentials, so a task may name only buckets that ``OVAM_IMAGE_STORES`` allows:
else whoever can import a task could read whatever those credentials can.
"""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from typing import Any

from ovam_labeler.errors import BadImageError, FetchError
from ovam_labeler.settings import Settings

#: Scheme -> fsspec's protocol, and the extra that installs it.
_PROTOCOLS = {"s3": ("s3", "s3"), "gs": ("gs", "gcs"), "gcs": ("gs", "gcs")}

#: Threads that wait for stores: their libraries have time limits of their own, not always one for all.
_POOL = ThreadPoolExecutor(8, thread_name_prefix="ovam-store")


def is_stored(reference: str) -> bool:
    """Whether an image lies in a store: ``s3://...``, ``gs://...`` or ``gcs://...``."""
    return reference.partition("://")[0] in _PROTOCOLS and "://" in reference


def fetch_stored(reference: str, settings: Settings) -> bytes:
    """The bytes of an image in a store.

    Raises:
        FetchError: not allowed by the settings, not there, refused, late, or the store's package is not installed.
        BadImageError: larger than ``OVAM_MAX_IMAGE_BYTES``.
    """
    scheme, _, path = reference.partition("://")
    shown = f"'{reference[:117]}...'" if len(reference) > 120 else f"'{reference}'"
    if not _allowed(reference, settings.image_stores):
        raise FetchError(
            f"The image {shown} lies in a bucket that tasks may not name; add it to OVAM_IMAGE_STORES, which is "
            f"'{settings.image_stores}'."
        )
    protocol, extra = _PROTOCOLS[scheme]
    limit, seconds = settings.max_image_bytes, settings.fetch_timeout
    try:
        # One byte more than allowed tells a file that is too large without asking for its size first.
        data = _POOL.submit(_read, protocol, path, limit + 1, seconds).result(timeout=seconds)
    except LateError as error:
        raise FetchError(f"The image {shown} did not come within {seconds:g} s; raise OVAM_FETCH_TIMEOUT.") from error
    except ImportError as error:
        raise FetchError(
            f"The image {shown} needs a package that is not installed; type: pip install 'ovam-labeler[{extra}]'."
        ) from error
    except FileNotFoundError as error:
        raise FetchError(f"The image {shown} is not there; its store answers, the file does not exist.") from error
    except PermissionError as error:
        raise FetchError(f"The image {shown} is refused; this process's cloud credentials may not read it.") from error
    except Exception as error:  # Each store's library has a family of errors of its own.
        raise FetchError(f"The image {shown} cannot be fetched from its store ({type(error).__name__}).") from error
    if len(data) > limit:
        raise BadImageError(f"The image {shown} is larger than {limit} bytes, the most allowed (OVAM_MAX_IMAGE_BYTES).")
    return data


def _allowed(reference: str, stores: str) -> bool:
    """Whether a reference lies in an allowed bucket or folder."""
    if any(part in ("", ".", "..") for part in reference.partition("://")[2].split("/")):
        return False
    allowed = [store.strip().rstrip("/") for store in stores.split(",") if is_stored(store.strip())]
    return any(reference.startswith(f"{store}/") and store.partition("://")[2] for store in allowed)


def _read(protocol: str, path: str, most: int, seconds: float) -> bytes:
    options: dict[str, Any] = {}
    if protocol == "s3":
        options["config_kwargs"] = {
            "connect_timeout": seconds,
            "read_timeout": seconds,
            "retries": {"max_attempts": 1},
        }
    else:
        options["timeout"] = seconds
    fsspec = importlib.import_module("fsspec")
    data: bytes = fsspec.filesystem(protocol, **options).cat_file(path, start=0, end=most)
    return data
