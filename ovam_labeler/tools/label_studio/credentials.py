"""Label Studio's two kinds of tokens, as the header that carries them.

A legacy token is sent as it is.  A personal access token is a JWT *refresh* token: Label Studio takes it only at
``/api/token/refresh``, in exchange for an access token of 300 s (measured on 1.23.2).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import requests

from ovam_labeler.errors import FetchError, UnauthorizedError

#: Seconds an exchanged access token is used; Label Studio's own limit is 300.
ACCESS_SECONDS = 240.0


class TokenRefusedError(UnauthorizedError):
    """Label Studio does not take the token."""

    status = 424


def is_personal_access_token(token: str) -> bool:
    """Whether a token is a JWT (three dotted parts); legacy tokens are 40 hex digits."""
    return token.count(".") == 2 and token.startswith("ey")


class Credentials:
    """Gives the ``Authorization`` header for the configured Label Studio; thread-safe."""

    def __init__(
        self,
        url: str,
        token: str | None,
        post: Callable[..., requests.Response],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._post = post
        self._clock = clock
        self._offered = False
        self._access = ""
        self._until = -math.inf
        self._lock = threading.Lock()

    @property
    def token(self) -> str | None:
        return self._token

    def offer(self, token: str) -> None:
        """Use a token Label Studio itself gave in /setup, where none is configured."""
        with self._lock:
            if self._token is None or self._offered:
                self._token, self._offered = token, True

    def header(self) -> dict[str, str]:
        """Header of a request to the configured host; empty without a token.

        Raises:
            TokenRefusedError: the personal access token is expired, revoked or not one.
        """
        token = self._token
        if not token:
            return {}
        if not is_personal_access_token(token):
            return {"Authorization": f"Token {token}"}
        with self._lock:
            if self._clock() >= self._until:
                asked = self._clock()
                self._access = self._exchange(token)
                self._until = asked + ACCESS_SECONDS
            return {"Authorization": f"Bearer {self._access}"}

    def renew(self) -> bool:
        """Forget the access token after a 401.  True where asking again can help."""
        with self._lock:
            self._until = -math.inf
            return bool(self._token) and is_personal_access_token(self._token or "")

    def _exchange(self, token: str) -> str:
        try:
            answer = self._post(f"{self._url}/api/token/refresh", json={"refresh": token})
        except requests.RequestException as error:
            raise FetchError(f"Label Studio at {self._url} is not reachable to renew the access token.") from error
        if answer.status_code in (400, 401, 403):
            raise TokenRefusedError(
                f"Label Studio at {self._url} refused the personal access token ({answer.status_code}); make a new one "
                "under Account & Settings > Personal Access Token and set OVAM_LABEL_STUDIO_TOKEN."
            )
        try:
            access = answer.json()["access"]
        except (ValueError, KeyError, TypeError) as error:
            raise FetchError(
                f"Label Studio at {self._url} answered {answer.status_code} without an access token."
            ) from error
        return str(access)
