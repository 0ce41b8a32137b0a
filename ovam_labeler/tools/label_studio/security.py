"""Who may post to the webhook."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Any, Protocol

from ovam_labeler.errors import UnauthorizedError

#: Header that carries ``OVAM_WEBHOOK_SECRET``.
SECRET_HEADER = "X-OVAM-Secret"


class WebhookRequest(Protocol):
    """What is read of a request: of flask's, of whatever version hosts it."""

    @property
    def headers(self) -> Any: ...

    @property
    def args(self) -> Any: ...

    @property
    def authorization(self) -> Any: ...

    @property
    def remote_addr(self) -> str | None: ...


def check_webhook(request: WebhookRequest, secret: str) -> None:
    """Let a webhook through that carries its connection's secret; without a secret, only one from this machine.

    The secret comes as the header, as the password of basic authentication (``http://any:SECRET@host:9090`` as the
    backend's URL), or as ``?secret=``.

    Raises:
        UnauthorizedError: it does not.
    """
    if secret:
        password = request.authorization.password if request.authorization else None
        given = (request.headers.get(SECRET_HEADER), password, request.args.get("secret"))
        right = False
        for text in given:  # all are compared, so that time tells nothing
            right |= hmac.compare_digest((text or "").encode(), secret.encode())
        if not right:
            raise UnauthorizedError(
                f"The webhook's secret is missing or wrong; give Label Studio's webhook the header {SECRET_HEADER}."
            )
        return
    proxied = any(request.headers.get(name) for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP"))
    if proxied or not _is_loopback(request.remote_addr):
        raise UnauthorizedError(
            "Without OVAM_WEBHOOK_SECRET the webhook is open to this machine only; set it and give Label Studio's webhook "
            f"the header {SECRET_HEADER}."
        )


def _is_loopback(address: str | None) -> bool:
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    inner = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (inner or ip).is_loopback
