"""The base model is loaded in the background, and warmed up before the first annotator needs it."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import OvamError
from ovam_labeler.services import Application

log = logging.getLogger(__name__)


def practise(application: Application) -> None:
    """Read one small picture of noise and fit a token on it for two passes, so that kernels are compiled and libraries
    imported before the first annotator waits for them.  Its capture stays in the cache; a failure is only logged."""
    from backends.contract import Needs, TokenExample

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    target = np.zeros((64, 64), np.float32)
    target[16:48, 16:48] = 1.0
    image = LoadedImage(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())
    try:
        capture = application.inference.submit(image, Needs()).result()
        attributor = application.backend().attributor
        recipe = replace(attributor.calibration.token_recipe, epochs=2)
        attributor.learn([TokenExample(capture, target, np.ones_like(target))], recipe, label="thing")
    except Exception as error:  # nobody asked for it
        log.info("The base model was not warmed up: %s", error)


class ModelState:
    """Loads the base model in the background and says from memory how far that is."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._now: Mapping[str, Any] = {"state": "loading", "message": "The base model is being loaded."}

    def start(self) -> None:
        threading.Thread(target=self._load, name="load model", daemon=True).start()

    def __call__(self) -> Mapping[str, Any]:
        return self._now

    def _load(self) -> None:
        try:
            self._application.backend()
            self._application.inference.warm_up()
            self._now = {"state": "ready", "message": ""}
            practise(self._application)
        except OvamError as error:
            log.error("The base model cannot be loaded: %s", error)
            self._now = {"state": "failed", "message": str(error)}
        except Exception as error:
            log.exception("The base model cannot be loaded")
            self._now = {"state": "failed", "message": f"The base model cannot be loaded ({type(error).__name__})."}
