"""Reads what every route needs of a request: its connection and its JSON body."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, NoReturn

from flask import Request

from ovam_labeler.errors import BadRequestError
from ovam_labeler.tools.label_studio import slim as slim_program
from ovam_labeler.tools.label_studio.connections import DEFAULT

#: Bodies from here on are made small first: reading them here would hold up /health and /setup.
LARGE_BYTES = 2 * 1024 * 1024

_CONNECTION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


def connection_name(connection: str | None) -> str:
    """The connection a URL names.

    Raises:
        BadRequestError: not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if connection is None:
        return DEFAULT
    if not _CONNECTION.match(connection):
        raise BadRequestError(
            "The connection in the URL must be 1 to 64 letters, digits, dots, dashes or underscores, beginning with a "
            "letter or digit."
        )
    return connection


def json_object(request: Request, *, slim: bool = False) -> dict[str, Any]:
    """The request's JSON object.

    A JSON content type is asked for, so that no web page in a browser on this machine can post here unasked.

    Args:
        slim: of a large body, tasks come with their id and data alone (see :mod:`ovam_labeler.tools.label_studio.slim`).

    Raises:
        BadRequestError: no JSON, no object, nested too deeply, or with NaN or infinite numbers.
    """
    if not request.is_json:
        raise BadRequestError("The request must have the content type application/json.")
    data = request.get_data(cache=False)
    if slim and len(data) > LARGE_BYTES:
        data = _slim(data)
    try:
        body = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The request's body is no JSON that can be read: {_first_line(error)}.") from error
    if not isinstance(body, dict):
        raise BadRequestError("The request's body must be a JSON object.")
    return body


def _slim(data: bytes) -> bytes:
    """Make a large body small in a process of its own, beside which this one's threads go on."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", slim_program.__file__], input=data, capture_output=True, check=False
    )
    return data if done.returncode else done.stdout  # what it cannot read is told by reading it here


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
