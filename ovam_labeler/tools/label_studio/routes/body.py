"""Reads what every route needs of a request: its connection and its JSON body."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from flask import Request

from ovam_labeler.errors import BadRequestError
from ovam_labeler.tools.label_studio.connections import DEFAULT

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


def json_object(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    A JSON content type is asked for, so that no web page in a browser on this machine can post here unasked.

    Raises:
        BadRequestError: no JSON, no object, nested too deeply, or with NaN or infinite numbers.
    """
    if not request.is_json:
        raise BadRequestError("The request must have the content type application/json.")
    try:
        body = json.loads(request.get_data(cache=False), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The request's body is no JSON that can be read: {_first_line(error)}.") from error
    if not isinstance(body, dict):
        raise BadRequestError("The request's body must be a JSON object.")
    return body


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
