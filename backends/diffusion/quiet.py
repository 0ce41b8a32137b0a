"""Keeps diffusers' and transformers' own progress bars and notes off the terminal: progress goes to our callback."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Both libraries import their parts lazily and in circles: two threads loading at once see half-made modules.
_LOADING = threading.RLock()


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Errors only and no progress bars from ``"diffusers"`` / ``"transformers"`` inside the block; restored after it.

    Their notes concern optional packages, not our users.  One thread at a time; import the libraries inside the block.
    """
    with _LOADING:
        yield from _switched_off(libraries)


def _switched_off(libraries: tuple[str, ...]) -> Iterator[None]:
    # Imported first: these modules set their logger's level when they are loaded.
    switches = [importlib.import_module(f"{name}.utils.logging") for name in libraries]
    loggers = [logging.getLogger(name) for name in libraries]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    shown = [switch for switch in switches if switch.is_progress_bar_enabled()]
    for switch in shown:
        switch.disable_progress_bar()
    try:
        yield
    finally:
        for switch in shown:
            switch.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
