"""Checks of this installation: what is wrong, in one sentence, and what to type.

Used by ``ovam-labeler doctor``.  A check never raises and never prints a secret.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ovam_labeler.settings import Settings

#: Free space under which writing captures and corrections is at risk.
LOW_DISK_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """Outcome of one check.  ``ok`` is None for a check that does not apply here; ``fix`` is what to type or set."""

    name: str
    ok: bool | None
    sentence: str
    fix: str = ""


def data_folder(settings: Settings) -> Check:
    """The data folder can be written and has room."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".doctor-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(
            "data folder",
            False,
            f"OVAM_DATA_DIR {folder} cannot be written: {error.strerror}.",
            f"export OVAM_DATA_DIR=/a/folder/you/own  # or: sudo chown $USER {folder}",
        )
    if free < LOW_DISK_BYTES:
        return Check(
            "data folder",
            False,
            f"OVAM_DATA_DIR {folder} has {free / 1e6:.0f} MB free; captures need more.",
            "Free some space, or lower OVAM_CACHE_MAX_BYTES.",
        )
    return Check("data folder", True, f"{folder} is writable, {free / 1e9:.1f} GB free.")


def database(settings: Settings) -> Check:
    """The store opens, its schema is current, its durability settings hold."""
    from token_store import open_store
    from token_store.contract import StoreError

    try:
        store = open_store(settings.resolved_database_url())
    except StoreError as error:
        return Check(
            "token store",
            False,
            str(error),
            "Restore the database from a backup, or set OVAM_DATABASE_URL to another one.",
        )
    try:
        problems = store.check()
    finally:
        store.close()
    if problems:
        return Check(
            "token store",
            False,
            " ".join(problems),
            "Type `ovam-labeler db check`; a setting of PostgreSQL is set in its postgresql.conf, a damaged file is restored "
            "by `ovam-labeler db restore`.",
        )
    server = settings.resolved_database_url().startswith("postgres")
    how = "PostgreSQL, fsync and synchronous_commit on" if server else "SQLite, WAL, synchronous=FULL"
    return Check("token store", True, f"The database opens, is current and durable ({how}).")


def plugins(settings: Settings) -> list[Check]:
    """Every plugin found, broken ones with their error."""
    from backends import discovery
    from ovam_labeler.tools.discovery import tools

    checks = []
    groups: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("backend", discovery.backends()),
        ("method", discovery.methods()),
        ("refiner", discovery.refiners()),
        ("tool", tools()),
    )
    for kind, found in groups:
        for name, item in sorted(found.items()):
            if item.error:
                checks.append(
                    Check(
                        f"{kind} {name}",
                        False,
                        f"The plugin of {item.distribution} is broken: {item.error}",
                        f"pip install --upgrade {item.distribution}  # or: pip uninstall {item.distribution}",
                    )
                )
            else:
                checks.append(Check(f"{kind} {name}", True, f"Provided by {item.distribution}."))
    return checks


def base_model(settings: Settings) -> Check:
    """The base model is there and its text side loads."""
    model = settings.model
    looks_like_path = model.startswith((".", "/", "~")) or (
        os.sep in model and Path(model).expanduser().parent.is_dir() and model.count("/") != 1
    )
    if model != "embedded" and looks_like_path and not Path(model).expanduser().is_dir():
        return Check(
            "base model",
            False,
            f"OVAM_MODEL {model} is no folder.",
            "export OVAM_MODEL=embedded  # or the folder of a diffusers pipeline (it holds model_index.json)",
        )
    from backends.contract import BackendError
    from backends.discovery import load_backend

    try:
        backend = load_backend(model, settings.backend, device="cpu")
    except BackendError as error:
        return Check(
            "base model",
            False,
            str(error),
            "export OVAM_MODEL=embedded  # or a folder of a diffusers pipeline, or a hub name this machine can reach",
        )
    fingerprint = backend.attributor.fingerprint
    return Check("base model", True, f"{fingerprint.model} loads; embedding space {fingerprint.space[:12]}.")


def threads(settings: Settings) -> Check:
    """Not more threads than cores: two OpenMP threads on a busy core collapse."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    wanted = settings.threads or cores
    if wanted > cores:
        return Check(
            "threads",
            False,
            f"OVAM_THREADS is {wanted}, but this process has {cores} cores; more threads than cores are many times slower.",
            f"export OVAM_THREADS={cores}",
        )
    return Check("threads", True, f"{wanted} threads on {cores} cores.")


def label_studio(settings: Settings) -> list[Check]:
    """What the measured protocol traps say of every Label Studio this server knows."""
    from ovam_labeler.tools.label_studio.connections import Connections

    connections = Connections(settings)
    names = connections.names()
    if not names:
        return [
            Check(
                "label studio",
                None,
                "OVAM_LABEL_STUDIO_URL is not set; images behind Label Studio's login cannot be fetched.",
                "export OVAM_LABEL_STUDIO_URL=http://localhost:8080 OVAM_LABEL_STUDIO_TOKEN=...",
            )
        ]
    from ovam_labeler.tools.label_studio.doctor_checks import run_checks

    checks = []
    for name in names:
        client = connections.client(name)
        secret = connections.secret(name)
        others = [stored for stored in connections.stored() if stored != name]
        own = client.settings.model_copy(update={"webhook_secret": SecretStr(secret) if secret else None})
        prefix = f"{name}: " if len(names) > 1 else ""
        checks += [Check(f"{prefix}{row.name}", *row[1:]) for row in run_checks(own, client, others)]
    return checks


def run_all(settings: Settings) -> Iterable[Check]:
    """All checks, in the order a person would mend them."""
    single: tuple[Callable[[Settings], Check | list[Check]], ...] = (
        data_folder,
        database,
        base_model,
        threads,
        plugins,
        label_studio,
    )
    for check in single:
        try:
            outcome = check(settings)
        except Exception as error:  # noqa: BLE001 - a doctor that dies says nothing of the other checks
            outcome = Check(
                check.__name__.replace("_", " "),
                False,
                f"The check itself failed: {type(error).__name__}: {error}",
                "Please report this with the output of `ovam-labeler doctor --json`.",
            )
        yield from outcome if isinstance(outcome, list) else [outcome]
