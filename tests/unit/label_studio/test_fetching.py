"""Fetching images: who gets credentials, who is reached at all, and what is said when it fails."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from protocol_helpers import DrawnApplication, captured, data_uri, predict_body
from pydantic import SecretStr

from ovam_labeler.errors import BadImageError, FetchError
from ovam_labeler.image_source import load_image
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.app import create_app
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.credentials import Credentials, TokenRefusedError
from ovam_labeler.tools.label_studio.network import AddressRefusedError, is_public

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PAT = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbiI6MX0.c2lnbmF0dXJl"
IMAGE = base64.b64decode(data_uri().split(",", 1)[1])


class Host:
    """A web server on 127.0.0.1 that remembers what it was asked and answers as Label Studio does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.accepted = f"Token {LEGACY}"
        self.redirect = ""
        self.exchanged = 0
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization")
                host.asked.append((self.path, given, self.headers.get("Cookie")))
                if self.path.startswith("/redirect"):
                    self._answer(302, b"", Location=host.redirect)
                elif self.path.startswith("/slow"):
                    self._slow()
                elif self.path.startswith("/dribble"):
                    self._dribble()
                elif self.path.startswith("/data/") and given != host.accepted:
                    self._answer(401, b"{}")
                elif self.path.startswith("/missing"):
                    self._answer(404, b"")
                else:
                    self._answer(200, IMAGE, **{"Set-Cookie": "sessionid=abc; Path=/"})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                host.exchanged += 1
                host.accepted = f"Bearer access-{host.exchanged}"
                self._answer(200, b'{"access": "access-%d"}' % host.exchanged)

            def _slow(self) -> None:
                self.send_response(200)
                self.end_headers()
                for _ in range(40):
                    try:
                        self.wfile.write(b"x")
                        self.wfile.flush()
                    except OSError:
                        return
                    time.sleep(0.1)

            def _dribble(self) -> None:
                """Headers that never end, a byte at a time: no single wait is long."""
                for _ in range(60):
                    try:
                        self.wfile.write(b"H")
                        self.wfile.flush()
                    except OSError:
                        return
                    time.sleep(0.1)

            def _answer(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=lambda: self.server.serve_forever(0.02), daemon=True).start()


@pytest.fixture
def studio() -> Iterator[Host]:
    host = Host()
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Host]:
    host = Host()
    yield host
    host.server.shutdown()
    host.server.server_close()


def client(studio: Host | None, token: str | None = LEGACY, **settings: Any) -> LabelStudioClient:
    return LabelStudioClient(
        Settings(
            label_studio_url=None if studio is None else studio.url + "/",
            label_studio_token=None if token is None else SecretStr(token),
            _env_file=None,
            **settings,
        )
    )


def test_paths_are_fetched_from_label_studio_with_its_token(studio: Host) -> None:
    assert client(studio).fetch_image("/data/upload/2/a.png") == IMAGE
    assert client(studio).fetch_image("/data/local-files/?d=a%20b.png") == IMAGE
    assert [given for _, given, _ in studio.asked] == [f"Token {LEGACY}"] * 2


def test_a_personal_access_token_is_exchanged_and_renewed_when_refused(studio: Host) -> None:
    fetcher = client(studio, PAT)
    for _ in range(2):
        assert fetcher.fetch_image("/data/upload/2/a.png") == IMAGE
    assert studio.exchanged == 1
    studio.accepted = "Bearer nobody knows"  # the access token has expired
    assert fetcher.fetch_image("/data/upload/2/a.png") == IMAGE
    assert studio.exchanged == 2 and PAT not in str(studio.asked)


def test_a_personal_access_token_is_renewed_before_its_300_seconds_are_over() -> None:
    """The access token of Label Studio 1.23.2 lives 300 s; a request with one that is over never leaves."""
    now = [1000.0]
    given: list[float] = []

    class Answer:
        status_code = 200

        def json(self) -> dict[str, str]:
            given.append(now[0])
            now[0] += 2.0  # the exchange itself takes time, and the token's life runs meanwhile
            return {"access": f"access-{len(given)}"}

    def post(url: str, json: dict[str, str]) -> Any:
        assert url == "http://studio/api/token/refresh" and json == {"refresh": PAT}
        return Answer()

    credentials = Credentials("http://studio", PAT, post, clock=lambda: now[0])
    began = now[0]
    while now[0] <= began + 905:
        used = int(credentials.header()["Authorization"].removeprefix("Bearer access-"))
        assert now[0] - given[used - 1] < 300
        now[0] += 7
    assert 3 <= len(given) <= 5
    now[0] += 301
    assert credentials.header() == {"Authorization": f"Bearer access-{len(given)}"} and now[0] - given[-1] < 3


@pytest.mark.parametrize("route", ["", "/c/team-a"])
def test_a_forged_hostname_gets_no_credentials(
    studio: Host, elsewhere: Host, make_application: Callable[..., DrawnApplication], route: str
) -> None:
    """The host a request names is not asked for anything, and no image it names gets the token."""
    application = make_application(
        label_studio_url=studio.url, label_studio_token=SecretStr(LEGACY), allow_private_fetch=True
    )
    asking = create_app(application).test_client()  # type: ignore[arg-type]
    setup = captured("setup") | {"hostname": elsewhere.url, "access_token": "e" * 40}
    assert asking.post(f"{route}/setup", json=setup).status_code == 200
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/2/a.png"}},
        {"id": 2, "data": {"image": f"{elsewhere.url}/a.png"}},
        {"id": 3, "data": {"image": f"{elsewhere.url.replace('127.0.0.1', 'user:pass@127.0.0.1')}/b.png"}},
        {"id": 4, "data": {"image": f"{studio.url}@{elsewhere.url.removeprefix('http://')}/c.png"}},
    ]
    body = predict_body(tasks) | {"hostname": elsewhere.url, "params": {"login": "u", "password": "p", "context": None}}
    asking.post(f"{route}/predict", json=body, headers={"Host": elsewhere.url.removeprefix("http://")})
    assert ("/data/upload/2/a.png", f"Token {LEGACY}", None) in studio.asked
    assert {path for path, _, _ in elsewhere.asked} >= {"/a.png", "/b.png"}
    assert [given for _, given, _ in elsewhere.asked if given is not None] == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    studio: Host, elsewhere: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that changes its address between the check and the connection (DNS rebinding) reaches nothing inside."""
    port = int(elsewhere.url.rpartition(":")[2])
    answers = iter(["93.184.215.14"])
    connected: list[tuple[str, int]] = []
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.example":
            return real(host, *args, **kwargs)
        return real(next(answers, "127.0.0.1"), *args, **kwargs)

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        connected.append(address)
        raise OSError("nothing is there")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    fetcher = client(studio)
    with pytest.raises(FetchError, match="not reachable"):
        fetcher.fetch_image(f"http://rebinding.example:{port}/a.png")
    assert connected == [("93.184.215.14", port)]
    with pytest.raises(AddressRefusedError, match="127.0.0.1"):
        fetcher.fetch_image(f"http://rebinding.example:{port}/a.png")
    assert len(connected) == 1 and elsewhere.asked == []


def test_a_name_with_one_private_address_among_public_ones_is_refused(
    studio: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    both = [(*entry, ("93.184.215.14", 80)), (*entry, ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(AddressRefusedError, match="10.0.0.1"):
        client(studio).fetch_image("http://mixed.example/a.png")


def test_a_tls_handshake_that_never_ends_is_given_up() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def dribble() -> None:
            made, _ = server.accept()
            with made, suppress(OSError):
                made.sendall(b"\x16\x03\x03\x3f\xff\x02")  # a handshake record of 16 kB, of which little comes
                for _ in range(60):
                    made.sendall(b"\0")
                    time.sleep(0.1)
            ended.set()

        threading.Thread(target=dribble, daemon=True).start()
        began = time.monotonic()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/a.png"
        with pytest.raises(FetchError, match="did not come within 0.5 s"):
            client(None, allow_private_fetch=True, fetch_timeout=0.5).fetch_image(url)
        assert time.monotonic() - began < 4
        assert ended.wait(5)


def test_a_page_in_place_of_a_picture_is_said(studio: Host) -> None:
    """Label Studio shows its login page to whoever may not see a file behind it."""
    with pytest.raises(BadImageError, match="no image that can be read"):
        load_image(b"<!doctype html><title>Log in</title>")


def test_other_hosts_get_no_credentials(studio: Host, elsewhere: Host) -> None:
    assert client(studio, allow_private_fetch=True).fetch_image(f"{elsewhere.url}/a.png") == IMAGE
    assert [given for _, given, _ in elsewhere.asked] == [None]


def test_redirects_carry_neither_credentials_nor_cookies_elsewhere(studio: Host, elsewhere: Host) -> None:
    fetcher = client(studio, allow_private_fetch=True)
    fetcher.fetch_image("/plain.png")
    studio.redirect = f"{elsewhere.url}/a.png"
    assert fetcher.fetch_image("/redirect") == IMAGE
    assert elsewhere.asked == [("/a.png", None, None)]


def test_private_addresses_are_refused_directly_and_along_redirects(studio: Host, elsewhere: Host) -> None:
    for url in (
        elsewhere.url,
        elsewhere.url.replace("127.0.0.1", "localhost"),
        elsewhere.url.replace("127.0.0.1", "0"),
    ):
        with pytest.raises(AddressRefusedError, match="OVAM_ALLOW_PRIVATE_FETCH"):
            client(studio).fetch_image(f"{url}/a.png")
    studio.redirect = f"{elsewhere.url}/a.png"
    with pytest.raises(AddressRefusedError):
        client(studio).fetch_image("/redirect")
    with pytest.raises(AddressRefusedError):
        client(None).fetch_image(f"{studio.url}/a.png")
    assert elsewhere.asked == []


def test_redirects_in_a_circle_end(studio: Host) -> None:
    studio.redirect = "/redirect"
    with pytest.raises(FetchError, match="more than 5 times"):
        client(studio).fetch_image("/redirect")


def test_a_redirect_to_another_scheme_is_refused(studio: Host) -> None:
    studio.redirect = "file:///etc/passwd"
    with pytest.raises(FetchError, match="no http or https URL"):
        client(studio).fetch_image("/redirect")


def test_slow_hosts_and_large_files_are_given_up(studio: Host) -> None:
    began = time.monotonic()
    with pytest.raises(FetchError, match="did not come within 0.5 s"):
        client(studio, fetch_timeout=0.5).fetch_image("/slow")
    with pytest.raises(FetchError, match="did not come within 0.5 s"):
        client(studio, fetch_timeout=0.5).fetch_image("/dribble")
    assert time.monotonic() - began < 4
    with pytest.raises(BadImageError, match="OVAM_MAX_IMAGE_BYTES"):
        client(studio, max_image_bytes=10).fetch_image("/plain.png")
    with pytest.raises(BadImageError, match="OVAM_MAX_IMAGE_BYTES"):
        client(studio, max_image_bytes=10).fetch_image(data_uri())


@pytest.mark.parametrize(
    ("token", "sentence"),
    [(None, "Set OVAM_LABEL_STUDIO_TOKEN"), ("f" * 40, "personal access token")],
)
def test_refused_tokens_say_what_to_do(studio: Host, token: str | None, sentence: str) -> None:
    with pytest.raises(FetchError, match=sentence) as caught:
        client(studio, token).fetch_image("/data/upload/2/a.png?signature=hidden")
    assert "hidden" not in str(caught.value) and "ffff" not in str(caught.value)


def test_a_token_that_label_studio_offers_serves_where_none_is_set(studio: Host) -> None:
    fetcher = client(studio, None)
    fetcher.credentials.offer(LEGACY)
    assert fetcher.fetch_image("/data/upload/2/a.png") == IMAGE
    configured = client(studio, LEGACY)
    configured.credentials.offer("another")
    assert configured.fetch_image("/data/upload/2/a.png") == IMAGE


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/2/a.png",
        "s3://b/a.png",
        "gs://b/a.png",
        "file:///etc/passwd",
        "a.png",
        "//evil/a.png",
        "http://",
        "http://[",
        "http://a:b/",
        "ftp://a/b",
        "",
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(reference: str) -> None:
    with pytest.raises(FetchError) as caught:
        client(None).fetch_image(reference)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("reference", ["data:image/png;base64", "data:image/png;base64,%%%", "data:image/png;base64,A"])
def test_broken_data_uris(reference: str) -> None:
    with pytest.raises(BadImageError):
        client(None).fetch_image(reference)


def test_unreachable_and_missing(studio: Host) -> None:
    with pytest.raises(FetchError, match="HTTP 404"):
        client(studio).fetch_image("/missing.png")
    studio.server.shutdown()
    studio.server.server_close()
    with pytest.raises(FetchError, match="not reachable"):
        client(studio).fetch_image("/plain.png")
    with pytest.raises(FetchError, match="is it running"):
        client(studio).call("GET", "/api/projects")


def test_api_calls_say_when_the_token_is_refused(studio: Host) -> None:
    with pytest.raises(TokenRefusedError, match="401"):
        client(studio, "wrong").call("GET", "/data/anything")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.17.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),
        ("2002:0a00:0001::1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public
