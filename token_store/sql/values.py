"""Values checked on their way into the database, so that what is refused is refused with the field's name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from token_store.contract import InvalidValueError
from token_store.entities import Scope

#: Longest class name, label, alias, connection or project: what a PostgreSQL index entry holds in any alphabet.
MAX_NAME = 500
#: Most values of one ``IN (...)``: far under SQLite's limit of variables.
CHUNK = 500

_T = TypeVar("_T")


def now() -> datetime:
    return datetime.now(UTC)


def text(field: str, value: Any, error: type[InvalidValueError] = InvalidValueError) -> str:
    """A string every database can hold.  Raises ``error`` for NUL and lone surrogates."""
    if not isinstance(value, str):
        raise error(f"{field} must be text, not {type(value).__name__}.")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise error(f"{field} {value[:80]!a} holds a NUL or half a surrogate pair, which cannot be stored.")
    return value


def name(field: str, value: Any, error: type[InvalidValueError] = InvalidValueError) -> str:
    """A non-blank string of at most :data:`MAX_NAME` characters, verbatim."""
    if not text(field, value, error).strip():
        raise error(f"{field} is empty; 1 to {MAX_NAME} characters are needed.")
    if len(value) > MAX_NAME:
        raise error(f"{field} has {len(value)} characters; at most {MAX_NAME} are allowed.")
    return str(value)


def scope(value: Scope) -> Scope:
    name("scope.connection", value.connection)
    if len(text("scope.project", value.project)) > MAX_NAME:
        raise InvalidValueError(f"scope.project has over {MAX_NAME} characters.")
    return value


def one_of(field: str, value: str, allowed: Sequence[str], error: type[InvalidValueError] = InvalidValueError) -> str:
    if value not in allowed:
        raise error(f"{field} is {value!r}; allowed are {', '.join(allowed)}.")
    return value


def moment(field: str, value: datetime) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidValueError(f"{field} is {value!r}; a time with its timezone is needed.")
    return value.astimezone(UTC)


def mapping(field: str, value: Mapping[str, Any], error: type[InvalidValueError] = InvalidValueError) -> dict[str, Any]:
    """The mapping as plain JSON data; numpy numbers become Python's.  Raises ``error`` for what JSON cannot say."""
    if not isinstance(value, Mapping):
        raise error(f"{field} must be a mapping, not {type(value).__name__}.")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False, default=_plain))
    except (TypeError, ValueError, RecursionError) as cause:
        raise error(f"{field} must be JSON with finite numbers: {cause}.") from cause
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def chunks(values: Sequence[_T]) -> Iterator[list[_T]]:
    iterator = iter(values)
    while part := list(islice(iterator, CHUNK)):
        yield part
