"""The token store's errors in the user's error tree.  Apart from :mod:`ovam_labeler.translate`, so that looking into the store
need not import torch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ovam_labeler import errors
from token_store import contract as store


@contextmanager
def translate_store_errors() -> Iterator[None]:
    """Turn errors of ``token_store``, and a full disk, into :class:`~ovam_labeler.errors.OvamError`."""
    try:
        yield
    except store.StoreFullError as error:
        raise errors.StorageFullError(str(error)) from error
    except store.NotFoundError as error:
        raise errors.NotFoundError(str(error)) from error
    except store.InvalidValueError as error:
        raise errors.BadRequestError(str(error)) from error
    except (store.ConflictError, store.NothingBeforeError) as error:
        raise errors.ConflictError(str(error)) from error
    except store.StoreError as error:
        raise errors.OvamError(str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.StorageFullError(
                "The disk is full; free some space and try again, nothing acknowledged was lost."
            ) from error
        raise
