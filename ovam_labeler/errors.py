"""One error tree.  Each error is one sentence for the user, a stable code and an HTTP status.

Two translators read it: the HTTP edge (``tools.label_studio.app``) and the CLI edge (``cli.main``).
"""

from __future__ import annotations


class OvamError(Exception):
    """Base of all errors shown to users.  ``str(error)`` is one sentence naming field, value and what is allowed."""

    code = "internal"
    status = 500
    exit_code = 1


class BadRequestError(OvamError):
    """The request cannot be understood."""

    code = "bad_request"
    status = 400
    exit_code = 2


class BadImageError(BadRequestError):
    """The bytes are no image we can read, or its size is out of bounds."""

    code = "bad_image"
    status = 422


class BadMaskError(BadRequestError):
    """A mask or region is unusable: wrong size, lying run-length count, empty."""

    code = "bad_mask"
    status = 422


class BadConfigError(BadRequestError):
    """A label config has no image tag, no label, or no control we can write."""

    code = "bad_config"
    status = 422


class UnauthorizedError(OvamError):
    """Missing or wrong secret."""

    code = "unauthorized"
    status = 401


class NotFoundError(OvamError):
    """No such task, token, correction, job or connection."""

    code = "not_found"
    status = 404
    exit_code = 2


class ConflictError(OvamError):
    """What was asked for does not fit what is there now: it changed meanwhile, or there is nothing to take back."""

    code = "conflict"
    status = 409
    exit_code = 2


class FetchError(OvamError):
    """An image could not be fetched; says why and what to do (token, address, storage)."""

    code = "fetch_failed"
    status = 424


class ModelError(OvamError):
    """The base model cannot be loaded or cannot do this."""

    code = "model"
    status = 503


class StorageFullError(OvamError):
    """No space left; nothing acknowledged was lost."""

    code = "disk_full"
    status = 507


class CancelledError(OvamError):
    """The work was cancelled."""

    code = "cancelled"
    status = 409


class NotConfirmedError(OvamError):
    """Something that destroys was not confirmed; nothing was done."""

    code = "not_confirmed"
    status = 409
    exit_code = 3
