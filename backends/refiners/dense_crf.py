"""Dense CRF refiner (Kraehenbuehl and Koltun 2011) through SimpleCRF, as the paper uses it (sections 3.4, 4.1).

The extension is optional.  It crashes on wrong sizes or parameter tuples, leaks its output and holds the GIL: everything is checked
here and the call is made in a helper process that is restarted when it dies, hangs or has served long enough.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from backends.attention.heatmaps import resize_maps
from backends.contract import BackendError
from backends.refiners.crf_process import ANSWER, HEADER, MAGIC, read_exactly
from backends.refiners.guided_filter import check_refiner_input

INSTALL = 'CPPFLAGS="-DNPY_IN_ARRAY=NPY_ARRAY_IN_ARRAY" pip install simplecrf==0.2.1.1'


@dataclass(frozen=True, slots=True)
class CRFParameters:
    """SimpleCRF's tuple, in its order.

    Attributes:
        w1, alpha, beta: weight of the bilateral term, its width in pixels and in grey levels 0..255.
        w2, gamma: weight of the smoothness term and its width in pixels.
        iterations: of mean field.
    """

    w1: float
    alpha: float
    beta: float
    w2: float
    gamma: float
    iterations: int

    def __post_init__(self) -> None:
        for field, value in zip(("w1", "w2"), (self.w1, self.w2), strict=True):
            if not (np.isfinite(value) and 0 <= value <= 1000):
                raise BackendError(f"Dense CRF: {field} is {value}; 0..1000 is allowed.")
        for field, value in zip(("alpha", "beta", "gamma"), (self.alpha, self.beta, self.gamma), strict=True):
            if not (np.isfinite(value) and 0.1 <= value <= 1000):
                raise BackendError(f"Dense CRF: {field} is {value}; 0.1..1000 is allowed.")
        if not (isinstance(self.iterations, int) and 1 <= self.iterations <= 100):
            raise BackendError(f"Dense CRF: iterations is {self.iterations}; a whole number 1..100 is allowed.")


#: "paper": SimpleCRF's defaults, used in section 4.1.  "gentle": half the weight and a quarter of the reach; on masks that are nearly
#: right the paper's setting did harm where this one helped.
PRESETS: Mapping[str, CRFParameters] = MappingProxyType(
    {"paper": CRFParameters(10.0, 80.0, 13.0, 3.0, 3.0, 5), "gentle": CRFParameters(5.0, 20.0, 13.0, 3.0, 3.0, 5)}
)


class DenseCRF:
    """Refiner "dense-crf".

    The soft map is read as the object's probability, so its threshold has to lie at 0.5
    (:func:`backends.attention.binarize.recentre`).  The answer is hard: 0 or 1.

    Args:
        preset: ``"gentle"`` or ``"paper"``, or parameters of your own.
        timeout: seconds for one image, the helper's start included.
        max_side: larger images are refined at this longest side, and the answer is scaled back.
    """

    name = "dense-crf"

    def __init__(self, preset: str | CRFParameters = "gentle", *, timeout: float = 60.0, max_side: int = 1024) -> None:
        if isinstance(preset, str):
            if preset not in PRESETS:
                raise BackendError(f"Dense CRF: preset is {preset!r}; one of {', '.join(PRESETS)} is allowed.")
            preset = PRESETS[preset]
        if importlib.util.find_spec("denseCRF") is None:
            raise BackendError(f"The dense CRF refiner needs SimpleCRF and a C++ compiler; type: {INSTALL}")
        self.parameters = preset
        self.max_side = max_side
        self.timeout = timeout
        self._helper = _SHARED

    def refine(self, image: np.ndarray, soft: np.ndarray) -> np.ndarray:
        """Label each pixel.

        Args:
            image: uint8 (H, W, 3).
            soft: float (H, W) in 0..1, probability of the object.

        Returns:
            float32 (H, W), 0 or 1 (at the border of masks scaled back, values between).

        Raises:
            BackendError: wrong input; the helper crashed twice or took too long.
        """
        check_refiner_input(image, soft)
        height, width = soft.shape
        factor = min(1.0, self.max_side / max(height, width))
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        prob = torch.from_numpy(np.array(soft, dtype=np.float32))[None]
        colours = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        if size != (height, width):
            prob = torch.nn.functional.adaptive_avg_pool2d(prob, size)
            colours = torch.nn.functional.adaptive_avg_pool2d(colours, size)
        both = np.stack([1 - prob[0].numpy(), prob[0].numpy()], -1)
        small = colours.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        labels = self._helper.label(small, both, self.parameters, self.timeout)
        hard = torch.from_numpy((labels == 1).astype(np.float32))[None]
        return resize_maps(hard, (height, width))[0].clamp(0, 1).numpy()

    def close(self) -> None:
        """End the helper process, which all dense CRF refiners share; the next :meth:`refine` starts another."""
        self._helper.close()


class _Helper:
    """One helper process: started when needed, one request at a time, replaced after a crash, a fork or many requests."""

    #: The extension leaks height x width bytes a request: at most 256 MiB before the helper is replaced.
    _LEAK = 1 << 28

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._leaked = 0
        atexit.register(self.close)

    def label(self, image: np.ndarray, prob: np.ndarray, parameters: CRFParameters, timeout: float) -> np.ndarray:
        """Labels int8 (H, W) for image uint8 (H, W, 3) and probabilities (H, W, 2)."""
        height, width = image.shape[:2]
        request = b"".join(
            (
                HEADER.pack(MAGIC, height, width, *astuple(parameters)),
                np.ascontiguousarray(image, np.uint8).tobytes(),
                np.ascontiguousarray(prob, "<f4").tobytes(),
            )
        )
        with self._lock:
            answer = self._ask(request, height * width, timeout)
            if answer is None:  # it crashed, perhaps of an earlier request's damage: once more with a fresh one
                answer = self._ask(request, height * width, timeout)
        if answer is None:
            raise BackendError("The dense CRF helper process crashed twice on this image; use another refiner.")
        return np.frombuffer(answer, np.int8).reshape(height, width)

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, request: bytes, pixels: int, timeout: float) -> bytes | None:
        """The answer's bytes; ``None`` when the process died."""
        process = self._running()
        late = threading.Event()

        def expire() -> None:
            late.set()
            process.kill()

        watch = threading.Timer(timeout, expire)
        watch.daemon = True
        watch.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            header = b""
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
                header = read_exactly(process.stdout, ANSWER.size)  # type: ignore[arg-type]
            body = b""
            status = length = 0
            if len(header) == ANSWER.size:
                _, status, length = ANSWER.unpack(header)
                body = read_exactly(process.stdout, length)  # type: ignore[arg-type]
        finally:
            watch.cancel()
        self._leaked += pixels
        if len(header) < ANSWER.size or len(body) < length:
            self._stop()
            if late.is_set():
                raise BackendError(f"The dense CRF took longer than {timeout:g} seconds; use a smaller image.")
            return None
        if status:
            raise BackendError(f"{body.decode(errors='replace')}; type: {INSTALL}")
        return body

    def _running(self) -> subprocess.Popen[bytes]:
        forked = self._owner != os.getpid()  # after a fork the pipes are shared with the parent: leave them to it
        if self._process is not None and not forked and (self._process.poll() is not None or self._leaked > self._LEAK):
            self._stop()
        if self._process is None or forked:
            script = Path(__file__).with_name("crf_process.py")
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner, self._leaked = os.getpid(), 0
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()


_SHARED = _Helper()
