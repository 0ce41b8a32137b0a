"""Who may see and use the pages.

Without ``OVAM_PAGES_PASSWORD`` they are open to this machine only; with it, to whoever gives it by basic authentication.
The name given with the password is any, and goes into the audit log.
"""

from __future__ import annotations

import hmac
import ipaddress

from flask import Request

from ovam_labeler.errors import OvamError
from ovam_labeler.settings import Settings

#: The audit log's name for somebody at this machine who gave no name.
LOCAL = "local"

MAX_NAME = 80

_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class NoPasswordError(OvamError):
    """The password is missing or wrong: the browser is asked for it."""

    code = "unauthorized"
    status = 401


class ClosedError(OvamError):
    """The pages are not open to this address."""

    code = "forbidden"
    status = 403


def user_of(request: Request, settings: Settings) -> str:
    """The name of who asks.

    Raises:
        NoPasswordError: a password is set and not given, or given without a name.
        ClosedError: no password is set, and the request is not from this machine or names another host.
    """
    password = settings.pages_password.get_secret_value() if settings.pages_password else ""
    if not password:
        _check_local(request)
        return LOCAL
    given = request.authorization
    right = hmac.compare_digest(((given.password if given else None) or "").encode(), password.encode())
    name = _clean((given.username if given else None) or "")
    if not right:
        raise NoPasswordError("These pages ask for a name of yours and the password in OVAM_PAGES_PASSWORD.")
    if not name:
        raise NoPasswordError("Give a name of yours with the password; the log keeps who changed what.")
    return name


def _check_local(request: Request) -> None:
    if any(request.headers.get(name) for name in _PROXY_HEADERS) or not _is_loopback(request.remote_addr):
        raise ClosedError(
            "These pages are open to this machine only; set OVAM_PAGES_PASSWORD and start the server again to open them "
            "to others, who then give a name of theirs and that password."
        )
    # A page elsewhere can have its own host name resolve to 127.0.0.1 (DNS rebinding); its requests then name that host.
    if host_name(request.host) not in _LOCAL_HOSTS and not host_name(request.host).endswith(".localhost"):
        raise ClosedError(
            "Without OVAM_PAGES_PASSWORD these pages are shown under the names localhost, 127.0.0.1 and [::1] only; open one "
            "of those, or set the password."
        )


def host_name(host: str) -> str:
    """``host`` or ``host:port`` -> host, lower case, without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_loopback(address: str | None) -> bool:
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    inner = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (inner or ip).is_loopback


def _clean(name: str) -> str:
    """A name fit for one line of a log."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())[:MAX_NAME]
