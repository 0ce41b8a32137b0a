"""A process that is killed right after a correction was acknowledged, or in the middle of learning it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from colour_model import ColourModel, box, scene

from ovam_labeler.application import build_application
from ovam_labeler.image_source import encode_png, load_image
from ovam_labeler.settings import Settings
from token_store.entities import CorrectionMask, NewCorrection, Scope


def main(data_dir: str, when: str) -> None:
    model = ColourModel()
    app = build_application(Settings(data_dir=Path(data_dir), _env_file=None), loader=model.load)  # type: ignore[call-arg]
    image = load_image(encode_png(scene(((210, 200, 20), (8, 8, 32, 32)))))
    app.decoders["direct"].keep(image)  # type: ignore[attr-defined]
    payload = {"tool": "direct", "image_sha256": image.sha256}
    new = NewCorrection(Scope("default", "1"), "1", "2026-11-23T00:00:00Z", "7", "ref", payload, ("x",))
    mask = box(8, 8, 32, 32)
    correction, _, _ = app.store.add_correction(new)
    app.store.put_correction_masks([CorrectionMask(correction.id, "x", "positive", mask, ~mask & mask)])
    if when == "running":
        model.reader.gate.clear()
        app.start_worker()
        while not model.reader.threads:
            time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


main(*sys.argv[1:])
