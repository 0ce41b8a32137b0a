"""Refuses forms that another site sent (cross-site request forgery).

Three checks, each enough in an ordinary browser: what the browser says of the request's origin, a cookie that is sent to
this site only, and a token in the form that is made from it.  The origin is checked too because a cookie knows no port:
a page of another server on this machine is the same site.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from urllib.parse import urlsplit

from flask import Request, Response

from ovam_labeler.errors import OvamError

COOKIE = "ovam_pages"
FIELD = "form_token"

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class ForgeryError(OvamError):
    """A form that does not come from a page of ours."""

    code = "forbidden"
    status = 403


def secret_of(request: Request) -> str:
    """The browser's secret, or a new one."""
    given = request.cookies.get(COOKIE, "")
    return given if _SECRET.fullmatch(given) else secrets.token_urlsafe(32)


def token(secret: str, user: str) -> str:
    """What a form of this browser and user carries."""
    return hmac.new(secret.encode(), f"form\0{user}".encode(), hashlib.sha256).hexdigest()


def keep(response: Response, request: Request, secret: str, path: str) -> None:
    """Give the browser its secret where it has none."""
    if request.cookies.get(COOKIE) != secret:
        response.set_cookie(COOKIE, secret, path=path, httponly=True, samesite="Strict", secure=request.is_secure)


def check(request: Request, user: str) -> None:
    """Raises ForgeryError: the form was sent from elsewhere, or from a page that is too old."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site")
    if (origin is not None and _host_of(origin) != request.host.lower()) or (
        site is not None and site != "same-origin"
    ):
        raise ForgeryError("This form was sent from another site and is refused; nothing was changed.")
    secret = request.cookies.get(COOKIE, "")
    given = request.form.get(FIELD, "")
    expected = token(secret, user)
    if not _SECRET.fullmatch(secret) or not hmac.compare_digest(given.encode(), expected.encode()):
        raise ForgeryError(
            "This form is out of date, or the browser keeps no cookies; go back, reload the page and send it again. "
            "Nothing was changed."
        )


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as an address whose bracket is never closed
        return ""
