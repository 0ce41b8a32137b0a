"""The one configured Label Studio: its address, its credentials, and calls of its API.

Credentials go to the configured host only (``OVAM_LABEL_STUDIO_URL``): never to a host named in a request, never along
a redirect to another one.
"""

from __future__ import annotations

import threading
from typing import Any

import requests

from ovam_labeler.errors import FetchError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio import network
from ovam_labeler.tools.label_studio.credentials import Credentials, TokenRefusedError


class PageMissingError(FetchError):
    """Label Studio answered 404: a page past the last one, or something deleted."""


class Connection:
    """One configured Label Studio, or none.  Thread-safe: each thread has its own session."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = settings.label_studio_url.rstrip("/") if settings.label_studio_url else None
        self.origin = network.origin_of(self.url) if self.url else None
        token = settings.label_studio_token
        self.credentials = Credentials(self.url or "", token.get_secret_value() if token else None, self._post)
        self._local = threading.local()

    def call(self, method: str, path: str, *, timeout: float | None = None, **kwargs: Any) -> Any:
        """One API call; returns the JSON (None for an empty answer).

        Raises:
            FetchError: not reachable, or an error status (its first words are in the sentence).
            TokenRefusedError: 401.
        """
        answer = self.raw_call(method, path, timeout=timeout, **kwargs)
        if answer.status_code == 401:
            raise TokenRefusedError(f"Label Studio at {self.url} refused the token (401). {self.token_advice()}")
        if answer.status_code == 404:
            raise PageMissingError(f"Label Studio at {self.url} has no {path.partition('?')[0]} (404).")
        if answer.status_code >= 400:
            raise FetchError(
                f"Label Studio answered {answer.status_code} to {method} {path}: {answer.text[:800].strip().rstrip('.')}."
            )
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise FetchError(f"Label Studio answered no JSON to {method} {path}.") from error

    def raw_call(self, method: str, path: str, *, timeout: float | None = None, **kwargs: Any) -> requests.Response:
        """One API call, its answer whatever the status.  Raises FetchError when nothing answers."""
        if self.url is None:
            raise FetchError("Label Studio's address is not set; set OVAM_LABEL_STUDIO_URL.")
        seconds = timeout or self.settings.fetch_timeout
        for attempt in (0, 1):
            headers = {**self.credentials.header(), **kwargs.pop("headers", {})}
            try:
                answer = self.session().request(
                    method, self.url + path, headers=headers, timeout=seconds, allow_redirects=False, **kwargs
                )
            except requests.RequestException as error:
                raise FetchError(f"Label Studio at {self.url} is not reachable; is it running?") from error
            if answer.status_code != 401 or attempt or not self.credentials.renew():
                return answer
        raise AssertionError("unreachable")

    def token_advice(self) -> str:
        if not self.credentials.token:
            return "Set OVAM_LABEL_STUDIO_TOKEN to a token of Label Studio (Account & Settings)."
        return (
            "Label Studio does not take OVAM_LABEL_STUDIO_TOKEN: legacy tokens are off in a new installation, so use a "
            "personal access token (Account & Settings > Personal Access Token)."
        )

    def _post(self, url: str, **kwargs: Any) -> requests.Response:
        return self.session().post(url, timeout=self.settings.fetch_timeout, allow_redirects=False, **kwargs)

    def session(self) -> requests.Session:
        """A session a thread: ``requests`` does not promise to share one."""
        made: requests.Session | None = getattr(self._local, "session", None)
        if made is None:
            made = network.session(self._may_be_private)
            made.headers["User-Agent"] = "ovam-labeler"
            self._local.session = made
        return made

    def _may_be_private(self, host: str, port: int) -> bool:
        own = self.origin is not None and (host.rstrip(".").lower(), port) == self.origin[1:]
        return own or self.settings.allow_private_fetch
