"""Images that pending learn jobs need: the capture cache keeps theirs, in every process that shares the database.

The jobs table says what is pending, so nothing has to be unpinned: a job that ends, fails or is cancelled frees its images,
and one that a crash left running is queued again at the next start and still needs them.
"""

from __future__ import annotations

from ovam_labeler.jobs.kinds import LEARN
from ovam_labeler.learning_examples import MAX_NEGATIVES, MAX_POSITIVES
from token_store.contract import NotFoundError, TokenStore
from token_store.entities import Correction, Scope

#: Most pending jobs that are looked at; those queued first are run first.
MOST_JOBS = 1000
#: The newest corrections of a class that keep their captures while a job of the class is pending: twice as many as a
#: token is learned from, since how many of them are negatives is not known without their masks.
MOST_LESSONS = 2 * (MAX_POSITIVES + MAX_NEGATIVES)


class PendingImages:
    """Call it for the identities (sha256) of the images that pending jobs need.  Thread-safe."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    def __call__(self) -> frozenset[str]:
        """
        Raises:
            StoreError: the store cannot be asked now.
        """
        images: set[str] = set()
        classes: set[tuple[Scope, str]] = set()
        for job in self._store.list_jobs(states=("queued", "running"), kinds=(LEARN,), limit=MOST_JOBS):
            number = job.payload.get("correction_id")
            try:
                correction = self._store.get_correction(number if isinstance(number, int) else -1)
            except NotFoundError:
                continue
            images.add(_image_of(correction))
            classes.update((correction.scope, label) for label in correction.labels)
        for scope, label in classes:
            lessons = self._store.list_corrections(
                scope, label=label, states=("pending", "learned"), limit=MOST_LESSONS
            )
            images.update(_image_of(correction) for correction in lessons)
        return frozenset(images - {""})


def _image_of(correction: Correction) -> str:
    """A correction's image: as the worker found it, or before that as its tool knew it; "" where neither did."""
    known = correction.image_sha256 or correction.payload.get("image_sha256")
    return known if isinstance(known, str) else ""
