"""One outcome of a check."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

#: Settings that let Label Studio reach private addresses and keep the cloud metadata network banned.
ALLOW_PRIVATE = "USE_DEFAULT_BANNED_SUBNETS=false USER_ADDITIONAL_BANNED_SUBNETS=169.254.0.0/16"


class Row(NamedTuple):
    """One outcome.  ``ok`` is None where the check does not apply; ``fix`` is what to type or set."""

    name: str
    ok: bool | None
    sentence: str
    fix: str = ""


def without_secret(url: str) -> str:
    """A URL without a user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
