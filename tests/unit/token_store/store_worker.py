"""A process that learns and promotes one class in a store, for tests that kill it or run many beside each other.

``python store_worker.py URL NAME MODE``; every acknowledged write is a line on stdout, written after the store returned.
Modes: ``contend SECONDS`` (add, promote, roll back, archive until the time is over), ``learn`` and ``promote`` (for ever, until
killed), ``migrate`` (open the store: whatever the schema, it is upgraded).
"""

from __future__ import annotations

import random
import sys
import time
from contextlib import suppress

import numpy as np

from token_store import open_store
from token_store.contract import ConflictError, StoreError
from token_store.entities import NewCorrection, NewTokenVersion, Scope
from token_store.registry_contract import ACTIVE

SCOPE = Scope("default", "1")


def say(*words: object) -> None:
    print(*words, flush=True)


def version(name: str, rng: random.Random) -> NewTokenVersion:
    embedding = np.full((2, 64), rng.random(), np.float32)
    return NewTokenVersion({"space": "a"}, embedding, {}, {"train_iou": rng.random()}, created_by=name)


def contend(url: str, name: str, seconds: float) -> None:
    store, rng = open_store(url), random.Random(name)
    say("ready")
    sys.stdin.readline()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = store.add_version(SCOPE, "cat", version(name, rng)).number
        say("version", number)
        current = store.get_token(SCOPE, "cat").aliases.get(ACTIVE)
        try:
            store.promote(SCOPE, "cat", number, who=name, why="newest", expect={ACTIVE: current})
            say("promoted", number)
        except ConflictError:
            say("conflict")
        if rng.random() < 0.2:
            with suppress(StoreError):  # nothing is left to roll back to where the others have rolled back as well
                store.rollback(SCOPE, "cat", who=name, why="worse")
            store.promote(SCOPE, "cat", number, who=name, why="after all")
            say("promoted", number)
    store.close()


def learn(url: str, name: str) -> None:
    """What a worker does: take a correction's job, store its version as active, end the correction and the job."""
    store, rng = open_store(url), random.Random(name)
    while True:
        new = NewCorrection(SCOPE, f"{name}-{rng.random()}", "2026-01-01T00:00:00Z", "1", "x.png", {}, ("cat",))
        correction, _, _ = store.add_correction(new)
        say("correction", correction.id)
        job = store.claim_job(name)
        if job is None:
            continue
        source = int(job.payload["correction_id"])
        made = NewTokenVersion({"space": "a"}, np.ones((2, 64), np.float32), {}, {}, (source,), created_by=name)
        say("version", store.add_version(SCOPE, "cat", made, aliases=(ACTIVE,), once=True).number)
        store.set_correction_state(source, "learned")
        store.finish_job(job.id, state="done")
        say("learned", source)


def promote(url: str, name: str) -> None:
    store, rng = open_store(url), random.Random(name)
    for _ in range(3):
        say("version", store.add_version(SCOPE, "cat", version(name, rng)).number)
    numbers = [v.number for v in store.list_versions(SCOPE, "cat")]
    while True:
        number = rng.choice(numbers)
        store.promote(SCOPE, "cat", number, who=name, why="chosen")
        say("active", number)
        if rng.random() < 0.3:
            say("active", store.rollback(SCOPE, "cat", who=name, why="back").after)


def main() -> None:
    url, name, mode, *rest = sys.argv[1:]
    if mode == "contend":
        contend(url, name, float(rest[0]))
    elif mode == "learn":
        learn(url, name)
    elif mode == "promote":
        promote(url, name)
    else:
        say("opening")
        open_store(url).close()
        say("opened")


if __name__ == "__main__":
    main()
