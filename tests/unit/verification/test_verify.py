"""``ovam-labeler verify`` on the embedded model and on a random Stable Diffusion folder: passes, fails, tells no names."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "diffusion"))

from random_pipeline import build

from backends.attention.queries import KeyProjection, LayerQueries, QueryBundle
from backends.contract import TokenSet
from backends.diffusion.attributor import StableDiffusionAttributor
from ovam_labeler.cli.main import app
from ovam_labeler.verification.plain import plain_map
from ovam_labeler.verification.results import Results


def run(out: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(app, ["verify", "--out", str(out), "--epochs", "4", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, json.loads(out.read_text("utf-8")) if out.exists() else {}, done.output


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [s for key, one in value.items() for s in (key, *strings(one))]
    if isinstance(value, list):
        return [s for one in value for s in strings(one)]
    return [value] if isinstance(value, str) else []


def test_embedded_model(tmp_path: Path) -> None:
    code, found, output = run(tmp_path / "verify.json", "--scenes", "1", "--steps", "30")
    assert code == 0 and found["ok"], output
    (image,) = found["images"]
    presets, many = image["presets"], image["many_steps"]["presets"]
    # float32, and half precision for one step; what spreads the maps is the same in both: a pixel's 64 queries and keys in two layers
    spread = 2 * presets["exact"]["bytes"] - presets["lossless"]["bytes"]
    assert spread % (2 * 2 * 64 * 2) == 0 and 1000 < spread / (2 * 2 * 64 * 2) < 1600
    assert (
        3.9 < (many["lossless"]["bytes"] - spread) / (many["exact"]["bytes"] - spread) <= 4
    )  # 8 bits and their scales
    assert 0 < many["exact"]["largest_error_of_range"] <= 5e-4
    assert image["classes"] == 20 and found["model"]["name"] == "embedded"
    (fit,) = found["fits"]
    paper = fit["paper"]
    assert len(paper["losses"]) == 4 and paper["losses"][-1] < paper["losses"][0]
    assert paper["learning_rate"] in (100, 10, 1) and fit["product"]["seconds"] > 0
    assert set(found["versions"]) >= {"python", "torch", "diffusers"}


def test_a_users_folder_and_image_are_not_named(tmp_path: Path) -> None:
    secret = tmp_path / "private-folder"
    secret.mkdir()
    folder = build(secret / "my-own-model")
    picture = secret / "my-holiday.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 130, 3)).astype(np.uint8)).save(picture)
    code, found, _ = run(
        tmp_path / "v.json", "--model", str(folder), "--scenes", "1", "--image", str(picture), "--generate", "a cat"
    )
    names = [check["name"] for check in found["checks"] if not check["ok"]]
    # Random weights have nothing to teach; everything that is arithmetic must hold.
    assert set(names) <= {"the paper's optimiser descends", "the fit descends"}
    assert code == (1 if names else 0)
    text = " ".join(strings(found))
    for private in ("private-folder", "my-own-model", "my-holiday", str(tmp_path), getpass.getuser() + "/"):
        assert private not in text
    assert found["model"]["name"] == "a local folder" and len(found["model"]["space"]) == 64
    assert [image["name"] for image in found["images"]] == ["scene 1", "own image 1"]
    assert found["generation"]["with_capture_s"] > 0


def test_an_engine_that_is_off_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = StableDiffusionAttributor.maps
    monkeypatch.setattr(
        StableDiffusionAttributor, "maps", lambda self, capture, queries: right(self, capture, queries) * 1.001
    )
    code, found, output = run(tmp_path / "v.json", "--scenes", "1")
    assert code == 1 and not found["ok"]
    assert "maps equal the plain formula (exact)" in [c["name"] for c in found["checks"] if not c["ok"]]
    assert "FAIL" in output


def test_nothing_to_read_and_bad_models_are_said_in_a_sentence(tmp_path: Path) -> None:
    for arguments, sentence in (
        (["--scenes", "0"], "nothing to read"),
        (["--model", str(tmp_path / "nowhere")], "nowhere"),
    ):
        done = CliRunner().invoke(app, ["verify", "--out", str(tmp_path / "x.json"), *arguments])
        assert done.exit_code != 0 and sentence in str(done.exception)
        assert not (tmp_path / "x.json").exists()


def test_the_plain_formula_is_equation_five() -> None:
    """Against a loop over steps, heads, layers, pixels and tokens."""
    draw = torch.Generator().manual_seed(0)
    layers, projections = [], {}
    for name, (height, width), heads in (("a", (3, 4), 2), ("b", (3, 4), 1)):
        queries = torch.randn(2, heads, height * width, 5, generator=draw)
        layers.append(LayerQueries(name, heads, height, width, 5**-0.5, queries))
        projections[name] = KeyProjection(name, torch.randn(heads * 5, 6, generator=draw), heads, 5**-0.5)
    tokens = torch.randn(3, 6, generator=draw)
    expected = np.zeros(12)
    for layer in layers:
        weight = projections[layer.name].weight.reshape(layer.heads, 5, 6)
        for step in range(2):
            for head in range(layer.heads):
                for pixel in range(12):
                    logits = [float(layer.queries[step, head, pixel] @ weight[head] @ t) * 5**-0.5 for t in tokens]
                    shares = np.exp(logits) / np.exp(logits).sum()
                    expected[pixel] += (shares[1] + shares[2]) / 2 / (2 * layer.heads) / 2
    found = plain_map(QueryBundle(tuple(layers)), projections, (TokenSet(tokens, (1, 2)),))
    assert np.allclose(found.numpy().ravel(), expected, atol=1e-6)


def test_results_without_checks_or_with_nan_are_not_ok() -> None:
    results = Results({"x": float("nan")})
    assert not results.ok
    results.at_most("a", 1.0, 2.0, "")
    assert results.ok
    results.at_most("b", float("nan"), 2.0, "")
    assert not results.ok
    assert json.loads(results.to_json())["x"] is None
