"""A bad network between Label Studio and our server: events are doubled, reordered and lost."""

from __future__ import annotations

import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

#: Shares of events that are lost and doubled, and how many are held back at most, to be delivered in another order.
LOST, DOUBLED, HELD = 0.05, 0.30, 24


class ShakingProxy:
    """Takes webhooks at :attr:`url` and hands them to ``target``; use as a context manager.

    Attributes:
        sent, lost, doubled: events that came in, that went nowhere, and that went twice.
        refused: statuses other than 2xx that the target gave.
    """

    def __init__(self, target: str, seed: int) -> None:
        self._target, self._chance = target, random.Random(seed)
        self._lock = threading.Lock()
        self._held: list[tuple[bytes, dict[str, str]]] = []
        self.sent = self.lost = self.doubled = 0
        self.refused: list[int] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept = {k: v for k, v in self.headers.items() if k in ("Content-Type", "X-OVAM-Secret")}
                self.send_response(proxy._take(body, kept))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def flush(self) -> None:
        """Deliver what is held back."""
        with self._lock:
            while self._held:
                self._deliver(self._held.pop(0))

    def __enter__(self) -> ShakingProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes, headers: dict[str, str]) -> int:
        with self._lock:
            self.sent += 1
            if self._chance.random() < LOST:
                self.lost += 1
                return 502
            copies = 2 if self._chance.random() < DOUBLED else 1
            self.doubled += copies - 1
            for _ in range(copies):
                place = self._chance.randint(max(0, len(self._held) - HELD // 2), len(self._held))
                self._held.insert(place, (body, headers))
            while len(self._held) > HELD:
                self._deliver(self._held.pop(0))
        return 201

    def _deliver(self, event: tuple[bytes, dict[str, str]]) -> None:
        answer = requests.post(f"{self._target}/webhook", data=event[0], headers=event[1], timeout=60)
        if not answer.ok:
            self.refused.append(answer.status_code)
