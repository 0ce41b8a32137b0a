"""What has to change in ``label-studio-ml``'s own server so that a correction is neither lost nor forged.

- 1.0.9 answers an event when it has spawned a process for it, before anything is stored, and its model version is the
  Unix time of the last event, one for all projects: :mod:`.ml_manager` takes its manager's place.
- 2.x knows no ANNOTATIONS_DELETED, so that what a deleted annotation taught would stay: its list of events is replaced.
- Anyone may post to the /webhook of either: the rules of :mod:`.security` are asked first.
- Both answer an error with its traceback: replaced by a status and one sentence, which Label Studio shows.

Module attributes are replaced for that, since neither offers a hook; 1.0.9 is the last release and pinned exactly.
Imports flask of whatever version ``label-studio-ml`` brings (1.1.2 with 1.0.9), and uses nothing younger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import flask
import label_studio_ml.api as api

from ovam_labeler.errors import OvamError
from ovam_labeler.tools.label_studio import ml_process
from ovam_labeler.tools.label_studio.connections import DEFAULT
from ovam_labeler.tools.label_studio.errors import answer_of
from ovam_labeler.tools.label_studio.joined import MAX_REQUEST_BYTES
from ovam_labeler.tools.label_studio.security import check_webhook


def install(events: Sequence[str]) -> None:
    """Change the server, once a process.

    Args:
        events: those that ``fit`` is called for.
    """
    server = api._server
    if server.config.get("OVAM_INSTALLED"):
        return
    server.config.update(OVAM_INSTALLED=True, MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES)
    server.before_request(_check)
    server.after_request(_tell)
    if hasattr(api, "_manager"):  # 1.0.9
        from ovam_labeler.tools.label_studio.ml_manager import OvamManager

        api._manager = OvamManager()
    else:
        api.TRAIN_EVENTS = tuple(events)


def serves(path: str) -> bool:
    """Whether a request of this path is being answered."""
    return flask.has_request_context() and flask.request.path.rstrip("/") == path


@contextmanager
def answered() -> Iterator[None]:
    """Have an error told as :mod:`.errors` tells it, whatever ``label-studio-ml`` makes of it on its way."""
    try:
        yield
    except Exception as error:
        if flask.has_request_context():
            flask.g.ovam_answer = answer_of(error)
        raise


def _check() -> flask.Response | None:
    if not serves("/webhook"):
        return None
    try:
        check_webhook(flask.request, ml_process.services().tool.connections.secret(DEFAULT))
    except OvamError as error:
        return answer_of(error)
    return None


def _tell(response: flask.Response) -> flask.Response:
    told: flask.Response | None = getattr(flask.g, "ovam_answer", None)
    return response if told is None else told
