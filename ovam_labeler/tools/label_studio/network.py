"""HTTP that cannot be turned against the inside of a network.

Every connection resolves the host itself, checks each address and connects to the checked one, so neither a redirect
nor a DNS answer that changes between check and use reaches a refused address.  Environment proxies and ``.netrc`` are
not used: they would send requests, or credentials, past these checks.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from ovam_labeler.errors import FetchError


class AddressRefusedError(FetchError):
    """The host's address is private, loopback, link-local or otherwise not public."""


def is_public(address: str) -> bool:
    """Whether an IP address text is globally reachable unicast (an IPv4 address inside an IPv6 one counts as itself)."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def origin_of(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of a URL, lower case, default ports filled in.

    Raises:
        FetchError: no http(s) URL with a host.
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
        port = parts.port or {"http": 80, "https": 443}[scheme]
    except (KeyError, ValueError) as error:
        raise FetchError(f"The address '{_short(url)}' is no http or https URL.") from error
    if not host:
        raise FetchError(f"The address '{_short(url)}' names no host.")
    return scheme, host, port


def session(allow_private: Callable[[str, int], bool]) -> requests.Session:
    """A session whose connections go to public addresses only.

    Args:
        allow_private: called with (host, port) of a connection; True lets it go to any address.
    """
    made = requests.Session()
    made.trust_env = False
    # Cookies are scoped by host without its port: a login at one port would travel to another.
    made.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _GuardedAdapter(allow_private)
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made


def _connect(connection: HTTPConnection, allow_private: Callable[[str, int], bool]) -> socket.socket:
    """Resolve, check and connect; the socket's peer is one of the checked addresses."""
    host, port = connection._dns_host, connection.port or connection.default_port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, f"the host name '{host}' is unknown") from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    if not allow_private(host, port):
        refused = [address for address in addresses if not is_public(address)]
        if refused:
            raise AddressRefusedError(
                f"The host '{host}' has the address {refused[0]}, which is not public; set OVAM_LABEL_STUDIO_URL if it is "
                "your Label Studio, or OVAM_ALLOW_PRIVATE_FETCH=true to allow private addresses."
            )
    timeout = connection.timeout if isinstance(connection.timeout, int | float) else None
    until = None if timeout is None else time.monotonic() + timeout
    problem: OSError | None = None
    for address in addresses:
        # A name with many addresses that do not answer takes no longer than one.
        left = None if until is None else max(until - time.monotonic(), 0.01)
        try:
            made = socket.create_connection((address, port), left)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as error:
            problem = error
    raise NewConnectionError(connection, f"no connection to {host}:{port}: {problem}") from problem


@contextmanager
def _ended_in_time(watched: object, seconds: object) -> Iterator[None]:
    """End a connection that is still at it after ``seconds``.

    A socket's own time limit starts anew with each byte, so a host that sends one now and then would hold a thread for
    hours before its headers are complete.

    Args:
        watched: a socket, or a function that gives it when the time is over.
    """
    if not isinstance(seconds, int | float):
        yield
        return

    def end() -> None:
        found = watched() if callable(watched) else watched
        if isinstance(found, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _GuardedAdapter(HTTPAdapter):
    """Builds pools whose connections are made by :func:`_connect`."""

    def __init__(self, allow_private: Callable[[str, int], bool]) -> None:
        self._allow_private = allow_private
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        allow_private = self._allow_private

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _connect(self, allow_private)

            def getresponse(self) -> Any:
                with _ended_in_time(self.sock, self.timeout):
                    return super().getresponse()

        class Secure(HTTPSConnection):
            _watched: socket.socket | None = None

            def _new_conn(self) -> socket.socket:
                made = _connect(self, allow_private)
                # The handshake takes the socket over; another handle on it lets the watch end it all the same.
                self._watched = made.dup()
                return made

            def connect(self) -> None:
                self._watched = None
                try:
                    with _ended_in_time(lambda: self._watched, self.timeout):
                        super().connect()
                finally:
                    if self._watched is not None:
                        self._watched.close()

            def getresponse(self) -> Any:
                with _ended_in_time(self.sock, self.timeout):
                    return super().getresponse()

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
