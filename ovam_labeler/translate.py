"""One translation of the rooms' errors into the user's error tree."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from backends.contract import BackendError
from ovam_labeler import errors
from token_store import contract as store


@contextmanager
def translate_errors(backend_error: type[errors.OvamError] = errors.BadRequestError) -> Iterator[None]:
    """Turn errors of ``backends`` and ``token_store``, and a full disk, into :class:`~ovam_labeler.errors.OvamError`.

    Args:
        backend_error: class for a :class:`BackendError`: a wrong prompt or label is the request's fault, a model that
            cannot be loaded is not (``ModelError``).
    """
    try:
        yield
    except BackendError as error:
        raise backend_error(str(error)) from error
    except store.StoreFullError as error:
        raise errors.StorageFullError(str(error)) from error
    except store.NotFoundError as error:
        raise errors.NotFoundError(str(error)) from error
    except store.InvalidValueError as error:
        raise errors.BadRequestError(str(error)) from error
    except store.StoreError as error:
        raise errors.OvamError(str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.StorageFullError(
                "The disk is full; free some space and try again, nothing acknowledged was lost."
            ) from error
        raise
