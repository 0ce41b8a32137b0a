"""Our backend on a thread of this process, on 127.0.0.1: the same web application that ``ovam-labeler serve`` runs."""

from __future__ import annotations

import threading
from types import TracebackType

from werkzeug.serving import WSGIRequestHandler, make_server

from ovam_labeler.pages.app import register_pages
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.app import create_app


class _Quiet(WSGIRequestHandler):
    """Says nothing of requests that went well: a progress bar is being drawn."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class BackendServer:
    """Serves an application until the block ends; the application stays the caller's.

    Args:
        port: 0 picks a free one.
    """

    def __init__(self, app: Application, port: int = 0) -> None:
        web = create_app(app)
        register_pages(web, app)
        self._server = make_server("127.0.0.1", port, web, threaded=True, request_handler=_Quiet)
        self.port = int(self._server.server_port)
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="demo-backend", daemon=True)

    def __enter__(self) -> BackendServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
