"""One translation of the rooms' errors into the user's error tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backends.contract import BackendError
from ovam_labeler import errors
from ovam_labeler.store_errors import translate_store_errors


@contextmanager
def translate_errors(backend_error: type[errors.OvamError] = errors.BadRequestError) -> Iterator[None]:
    """Turn errors of ``backends`` and ``token_store``, and a full disk, into :class:`~ovam_labeler.errors.OvamError`.

    Args:
        backend_error: class for a :class:`BackendError`: a wrong prompt or label is the request's fault, a model that
            cannot be loaded is not (``ModelError``).
    """
    try:
        with translate_store_errors():
            yield
    except BackendError as error:
        raise backend_error(str(error)) from error
