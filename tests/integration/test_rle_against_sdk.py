"""Our brush codec and label-studio-sdk's own, each reading what the other wrote, on drawn and random masks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.label_studio.rle import decode_mask, encode_mask

pytestmark = [pytest.mark.real_label_studio, pytest.mark.slow]

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-label-studio"

#: The SDK's side: decodes our streams, encodes the masks itself.
PROGRAM = """
import json, sys
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle
given = json.load(open(sys.argv[1], encoding="utf-8"))
masks = np.load(sys.argv[2])
read, written = {}, {}
for name, stream in given.items():
    mask = masks[name]
    words = np.asarray(decode_rle(stream)).reshape(*mask.shape, 4)
    read[name] = bool(((words == 255) == mask[..., None]).all() and set(np.unique(words)) <= {0, 255})
    written[name] = mask2rle(mask.astype(np.uint8) * 255)
print(json.dumps({"read": read, "written": written}))
"""


def masks() -> dict[str, np.ndarray]:
    """Random masks of many shapes and densities, smooth and noisy, long runs and none."""
    rng = np.random.default_rng(7)
    made = {}
    for n in range(120):
        height, width = (int(v) for v in rng.integers(1, 70, 2))
        noise = rng.random((height, width))
        if n % 2:
            steps = int(rng.integers(1, 12))
            noise = np.repeat(np.repeat(noise, steps, 0), steps, 1)[:height, :width]
        made[f"random {n}"] = noise < rng.random()
    y, x = np.mgrid[:700, :900]
    made["disc"] = (y - 300) ** 2 + (x - 500) ** 2 < 250**2
    made["all"], made["none"] = np.ones((640, 480), bool), np.zeros((640, 480), bool)
    made["column"], made["row"] = np.ones((4096, 1), bool), np.arange(4096)[None] % 3 == 0
    return made


def test_both_codecs_read_what_the_other_wrote(tmp_path: Path) -> None:
    drawn = masks()
    np.savez(tmp_path / "masks.npz", **drawn)
    streams = {name: encode_mask(mask) for name, mask in drawn.items()}
    (tmp_path / "streams.json").write_text(json.dumps(streams), encoding="utf-8")
    done = subprocess.run(
        [
            str(ENVIRONMENT / "bin" / "python"),
            "-c",
            PROGRAM,
            str(tmp_path / "streams.json"),
            str(tmp_path / "masks.npz"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert [name for name, fine in answer["read"].items() if not fine] == []
    for name, stream in answer["written"].items():
        assert np.array_equal(decode_mask(stream, *drawn[name].shape), drawn[name]), name
        assert len(streams[name]) <= len(stream), name
        with pytest.raises(BadMaskError):
            decode_mask(stream, drawn[name].shape[0] + 1, drawn[name].shape[1])
