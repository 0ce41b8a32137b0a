"""Reads what the addresses and forms of the pages carry; everything in them is text that anybody may have written."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ovam_labeler.errors import BadRequestError
from token_store.entities import Scope

#: How the global scope is written in an address.
GLOBAL = "global"

_CONNECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_PROJECT = 200
_MAX_NAME = 1000
_MAX_REASON = 500


def scope_text(scope: Scope) -> str:
    """``default/2``, or ``global``."""
    return str(scope)


def read_scope(values: Mapping[str, str], key: str = "scope") -> Scope:
    """The scope an address names.  Raises BadRequestError."""
    text = values.get(key, "")
    if text == GLOBAL:
        return Scope.everywhere()
    connection, slash, project = text.partition("/")
    if not (slash and _CONNECTION.fullmatch(connection) and 0 < len(project) <= _MAX_PROJECT):
        raise BadRequestError(f"The address needs {key}=connection/project, such as default/2, or {key}={GLOBAL}.")
    return Scope(connection, project)


def read_scope_or_none(values: Mapping[str, str], key: str = "scope") -> Scope | None:
    """None where the address names no scope."""
    return read_scope(values, key) if values.get(key) else None


def read_name(values: Mapping[str, str], key: str = "name") -> str:
    """The class an address names.  Raises BadRequestError."""
    name = values.get(key, "")
    if not name or len(name) > _MAX_NAME:
        raise BadRequestError(f"The address needs {key}=, a class name of 1 to {_MAX_NAME} characters.")
    return name


def read_number(values: Mapping[str, str], key: str) -> int | None:
    """A number from 1, or None where there is none.  Raises BadRequestError."""
    text = values.get(key, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) > 0):
        raise BadRequestError(f"The field {key} is {text[:40]!r}; a number from 1 is allowed.")
    return int(text)


def read_choice(values: Mapping[str, str], key: str, allowed: Mapping[str, object] | tuple[str, ...]) -> str:
    """One of the allowed texts, or "".  Raises BadRequestError."""
    text = values.get(key, "")
    if text and text not in allowed:
        raise BadRequestError(f"The field {key} is {text[:40]!r}; allowed are {', '.join(allowed)}.")
    return text


def read_reason(values: Mapping[str, str]) -> str:
    """One line for the audit log; says so where none was given."""
    reason = " ".join("".join(c if c.isprintable() else " " for c in values.get("reason", "")).split())
    return reason[:_MAX_REASON] or "no reason given"
