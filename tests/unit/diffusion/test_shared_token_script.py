"""docs/sharing.md's script, run as it stands there: a shared token in plain diffusers draws what this program draws."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from backends.attention.spread import without_affinity
from backends.contract import Backend, Needs, TokenExample, TokenRecipe
from backends.diffusion.tiny.loader import WEIGHTS
from backends.discovery import load_backend
from token_store.exchange import SharedToken, pack

DOCS = Path(__file__).parents[3] / "docs" / "sharing.md"


def script() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def test_the_script_is_ten_lines_long() -> None:
    lines = [line for line in script().splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(("import ", "from "))]) == 10
    assert "ovam_labeler" not in script() and "backends" not in script()


@pytest.fixture(scope="module")
def embedded() -> Backend:
    return load_backend("embedded")


@pytest.mark.parametrize("model", ["random", "embedded"])
def test_the_script_draws_what_this_program_draws(
    model: str, folder: Path, backend: Backend, embedded: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, path, prompt = (backend, folder, "a cat on the beach") if model == "random" else (embedded, WEIGHTS, "a car")
    # The pipeline's own defaults, as in the script.
    made = used.reader().generate(prompt, Needs(), seed=0, steps=50, guidance=7.5)
    height, width = made.image.shape[:2]
    target = np.zeros((height, width), np.float32)
    target[height // 4 : height // 2, width // 4 : width // 2] = 1
    recipe = TokenRecipe(optimizer="adam", epochs=15, learning_rate=0.2, tokens=3)
    example = TokenExample(made.capture, target, np.ones_like(target))
    fit = used.attributor.learn([example], recipe, label="cat")
    mark = used.attributor.fingerprint
    (tmp_path / "token.safetensors").write_bytes(
        pack([SharedToken("cat", {"space": mark.space, "model": mark.model, "settings": {}}, fit.embedding)])
    )
    (tmp_path / "script.py").write_text(script(), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["script.py", str(path), str(tmp_path / "token.safetensors"), prompt])
    found = runpy.run_path(str(tmp_path / "script.py"))
    # The script draws Eq. 5, not what a model's own self-attention makes of it.
    ours = (
        used.attributor.maps(without_affinity(made.capture), [used.attributor.token(fit.embedding)])[0].detach().numpy()
    )
    theirs = found["heat"].numpy()
    assert theirs.shape == ours.shape and np.ptp(ours) > 0.01
    # Captures keep queries as float16.
    assert np.abs(ours - theirs).max() < 5e-3 * max(1.0, float(ours.max()))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
    assert np.abs(np.asarray(found["image"]).astype(int) - made.image.astype(int)).mean() < 2
