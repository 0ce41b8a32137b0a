"""The services of a process that ``label-studio-ml`` hosts: joined at the first request, the worker beside them.

``label-studio-ml`` makes a model object for every request, so what lasts lives here, once a process.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import threading

from ovam_labeler.application import build_application
from ovam_labeler.model_state import ModelState
from ovam_labeler.services import Application
from ovam_labeler.settings import Settings
from ovam_labeler.tools.decoders import built_in_decoders
from ovam_labeler.tools.label_studio.joined import LabelStudioServices, join

log = logging.getLogger(__name__)

_lock = threading.Lock()
_application: Application | None = None
_services: LabelStudioServices | None = None


def services() -> LabelStudioServices:
    """This process's services, joined from its settings (``OVAM_...``) at the first call.

    Raises:
        OvamError: the data folder or the database cannot be used; says what to do.
    """
    with _lock:
        if _services is None:
            settings = Settings()
            _join(build_application(settings, decoders=built_in_decoders(settings)))
        assert _services is not None
        return _services


def use(application: Application) -> LabelStudioServices:
    """Serve from an application of the caller's, in place of one from settings; before the first request."""
    with _lock:
        if _services is not None:
            raise RuntimeError("The services of this process are joined already.")
        return _join(application)


def close() -> None:
    """End the worker and the services; a job that still runs is queued again by the next start."""
    global _application, _services
    with _lock:
        application, services_, _application, _services = _application, _services, None, None
    if services_ is not None:
        services_.reconciler.stop()
    if application is not None:
        application.close()


def _join(application: Application) -> LabelStudioServices:
    global _application, _services
    joined = join(application)
    # label-studio-ml 1.0.9 may do an event in a process made for it alone.  A worker there would end with it, in the
    # middle of a job; the process that serves has one, which finds what was stored.
    if multiprocessing.parent_process() is None:
        ModelState(application).start()
        application.start_worker()
        joined.reconciler.start_known()
        joined.reconciler.start_periodic()
    _application, _services = application, joined
    atexit.register(close)
    return joined
