"""Runs the HTTP server: gunicorn, one worker process, threads.

One process, since the base model and the job worker live in it; no preload, since torch (and CUDA above all) does not
survive a fork.  Both are started inside the worker process.  A worker that dies is started anew by gunicorn, and its
interrupted jobs are queued again.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from flask import Flask
from gunicorn.app.base import BaseApplication

from ovam_labeler.errors import BadRequestError
from ovam_labeler.model_state import ModelState
from ovam_labeler.services import Application
from ovam_labeler.settings import Settings

log = logging.getLogger(__name__)

#: Threads that answer requests; more than predictions run at once, so that /health always finds one.
THREADS = 32

#: Seconds after which a thread that computes lets others run; Python's own 5 ms add up where a request changes threads often.
SWITCH_SECONDS = 0.001

#: Seconds that requests under way are given when the server is stopped.
GRACEFUL_SECONDS = 20


def make_wsgi(settings: Settings) -> tuple[Flask, Application]:
    """The WSGI application with its services, model loading and job worker started in this process."""
    from ovam_labeler.application import build_application
    from ovam_labeler.pages.app import register_pages
    from ovam_labeler.tools.decoders import built_in_decoders
    from ovam_labeler.tools.label_studio.app import create_app

    application = build_application(settings, decoders=built_in_decoders(settings))
    state = ModelState(application)
    app = create_app(application, state=state)
    register_pages(app, application, state=state)
    state.start()
    application.start_worker()
    app.extensions["ovam_reconciler"].start_known()
    app.extensions["ovam_reconciler"].start_periodic()
    return app, application


def run_server(settings: Settings, host: str = "127.0.0.1", port: int = 9090) -> None:
    """Serve until ended (SIGTERM, SIGINT).

    Args:
        port: 0 picks a free one; the address is printed as ``Listening at http://host:port``.

    Raises:
        BadRequestError: the address cannot be listened on.
    """
    # force: whatever the command line set up is replaced.
    logging.basicConfig(force=True, level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # urllib3 writes whole URLs at DEBUG, and those may hold signatures.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    port = _checked_port(host, port)
    print(f"Listening at http://{host}:{port} (pages for people: http://{host}:{port}/pages/)", flush=True)
    _Server(settings, host, port).run()


def _checked_port(host: str, port: int) -> int:
    """The port, picked where it is 0; said in one sentence where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadRequestError(
                f"Port {port} of {host} cannot be listened on ({error.strerror or error}); give another with --port."
            ) from error
        return int(probe.getsockname()[1])


class _Server(BaseApplication):
    """gunicorn without its command line."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self._settings = settings
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._application: Application | None = None
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "bind": self._address,
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "preload_app": False,
            "timeout": 300,
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": 5,
            "accesslog": None,  # query strings may hold the webhook's secret
            "loglevel": self._settings.log_level.lower(),
            "proc_name": "ovam-labeler",
            "control_socket_disable": True,
            "worker_exit": self._close,
        }.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called in the worker process."""
        sys.setswitchinterval(SWITCH_SECONDS)
        app, self._application = make_wsgi(self._settings)
        log.info("Worker process %d serves at %s.", os.getpid(), self._address)
        return app

    def _close(self, _server: object, _worker: object) -> None:
        if self._application is not None:
            self._application.close()
