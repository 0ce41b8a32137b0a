"""The command line as a user types it, with the embedded model: every command in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """Runs ``ovam-labeler`` with a data folder of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("OVAM_")},
            "OVAM_DATA_DIR": str(data_dir),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }

    def __call__(self, *arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ovam_labeler", *map(str, arguments)],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "state" / "deep")


def scene(path: Path, size: tuple[int, int] = (160, 200), shift: int = 0) -> np.ndarray:
    """A red disc on a grey ground; returns its exact mask (H, W)."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    mask = (y - height * 0.5) ** 2 + (x - width * 0.35 - shift) ** 2 < (0.25 * height) ** 2
    pixels = np.full((height, width, 3), 170, np.uint8)
    pixels[mask] = (210, 40, 30)
    Image.fromarray(pixels).save(path)
    return mask


def test_any_command_initialises_an_empty_data_folder(shell: Shell) -> None:
    assert not shell.data_dir.exists()
    assert shell.json("tokens", "list") == []
    assert (shell.data_dir / "ovam.sqlite3").is_file()


def test_predict_learn_predict(shell: Shell, tmp_path: Path) -> None:
    mask = scene(tmp_path / "first.png")
    scene(tmp_path / "second.jpg", size=(140, 220), shift=10)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "truth.png")
    out = tmp_path / "masks"

    before = shell.json(
        "predict",
        tmp_path / "first.png",
        tmp_path / "second.jpg",
        "--label",
        "red disc",
        "--label",
        "defect_07",
        "--out",
        out,
        "--no-presence",
        "--overlay",
    )
    assert [row["image"] for row in before["images"]] == [str(tmp_path / "first.png"), str(tmp_path / "second.jpg")]
    for stem, size in (("first", (200, 160)), ("second", (220, 140))):
        for label in ("red disc", "defect_07"):
            with Image.open(out / f"{stem}.{label}.png") as written:
                assert written.size == size
                assert set(np.unique(np.asarray(written))) <= {0, 255}
        assert (out / f"{stem}.overlay.jpg").is_file()
    assert {m["source"] for row in before["images"] for m in row["masks"]} == {"word"}

    learned = shell.json("learn", tmp_path / "first.png", tmp_path / "truth.png", "--label", "defect_07")
    assert learned["active"] and learned["version"] == 1
    assert 0 <= learned["metrics"]["train_iou"] <= 1
    assert len(learned["metrics"]["losses"]) >= 1

    listed = shell.json("tokens", "list")
    assert [(t["class_name"], t["aliases"]) for t in listed] == [("defect_07", {"active": 1})]
    (shown,) = shell.json("tokens", "show", "defect_07")
    assert shown["state"] == "unproven" and shown["aliases"] == ["active"]

    after = shell.json(
        "predict",
        tmp_path / "first.png",
        "--label",
        "red disc",
        "--label",
        "defect_07",
        "--out",
        out,
        "--no-presence",
        "--overlap",
        "independent",
    )
    sources = {m["label"]: (m["source"], m["token_version"]) for m in after["images"][0]["masks"]}
    assert sources == {"red disc": ("word", None), "defect_07": ("token", 1)}
    predicted = np.asarray(Image.open(out / "first.defect_07.png")) > 0
    assert (predicted & mask).sum() / (predicted | mask).sum() > 0.5


def test_generate_is_repeatable_and_predicts_from_its_queries(shell: Shell, tmp_path: Path) -> None:
    made = shell.json("generate", "a photograph of a car", "--seed", "3", "--steps", "4", "--out", tmp_path / "a")
    again = Shell(tmp_path / "other").json(
        "generate", "a photograph of a car", "--seed", "3", "--steps", "4", "--out", tmp_path / "b"
    )
    assert made["images"][0]["sha256"] == again["images"][0]["sha256"]
    path = Path(made["images"][0]["image"])
    assert path.read_bytes() == Path(again["images"][0]["image"]).read_bytes()
    rows = shell.json("predict", path, "--label", "car", "--out", tmp_path / "masks")
    assert rows["images"][0]["masks"][0]["label"] == "car"


def bad_images(folder: Path) -> dict[str, Path]:
    """Files that are no image, or hardly one."""
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole, "PNG")
    contents = {
        "empty.png": b"",
        "text.png": b"hello",
        "cut.png": whole.getvalue()[:200],
        "page.jpg": b"<html>404</html>",
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents} | {"missing.png": folder / "missing.png"}


def test_bad_images_are_one_sentence_each_and_stop_nothing(shell: Shell, tmp_path: Path) -> None:
    scene(tmp_path / "good.png")
    bad = bad_images(tmp_path)
    result = shell.json(
        "predict", *bad.values(), tmp_path / "good.png", "--label", "disc", "--out", tmp_path / "m", code=2
    )
    errors = {Path(r["image"]).name: r["error"]["message"] for r in result["images"] if "error" in r}
    assert set(errors) == set(bad)
    assert all(message and "\n" not in message for message in errors.values())
    assert (tmp_path / "m" / "good.disc.png").is_file()


def test_odd_but_honest_images_work(shell: Shell, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (40, 56, 3), np.uint8)
    picture = Image.fromarray(noise)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    picture.convert("P").save(tmp_path / "palette.png")
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) << 8).save(tmp_path / "sixteen.png")
    Image.new("RGB", (8000, 600), (10, 90, 40)).save(tmp_path / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "rotated.jpg", exif=exif)
    names = ["cmyk.jpg", "palette.png", "alpha.png", "sixteen.png", "wide.png", "rotated.jpg"]
    result = shell.json("predict", *(tmp_path / n for n in names), "--label", "café", "--out", tmp_path / "m")
    sizes = {Path(r["image"]).name: (r["width"], r["height"]) for r in result["images"]}
    assert sizes == {**dict.fromkeys(names[:4], (56, 40)), "wide.png": (8000, 600), "rotated.jpg": (40, 56)}
    with Image.open(tmp_path / "m" / "rotated.café.png") as mask:
        assert mask.size == (40, 56)


def test_one_pixel_is_answered_with_a_mask_or_a_sentence(shell: Shell, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ovam_labeler",
            "predict",
            str(tmp_path / "dot.png"),
            "--label",
            "x",
            "--out",
            str(tmp_path / "m"),
            "--json",
        ],
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr
    row = json.loads(done.stdout)["images"][0]
    assert ("error" in row and "1" in row["error"]["message"]) or row["width"] == 1


@pytest.mark.parametrize(
    ("kind", "needle"),
    [("empty", "empty"), ("full", "whole picture"), ("other size", "(160, 200)"), ("no image", "cannot be read")],
)
def test_bad_masks_are_refused_with_a_sentence(shell: Shell, tmp_path: Path, kind: str, needle: str) -> None:
    mask = scene(tmp_path / "image.png")
    path = tmp_path / "mask.png"
    match kind:
        case "empty":
            Image.fromarray(np.zeros_like(mask, np.uint8)).save(path)
        case "full":
            Image.fromarray(np.full(mask.shape, 255, np.uint8)).save(path)
        case "other size":
            Image.fromarray(np.full((20, 30), 255, np.uint8)).save(path)
        case "no image":
            path.write_bytes(b"nothing")
    done = shell("learn", tmp_path / "image.png", path, "--label", "disc", code=2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert needle in done.stderr
    assert shell.json("tokens", "list") == []


def test_a_mask_of_five_pixels_learns_or_says_why_not(shell: Shell, tmp_path: Path) -> None:
    mask = np.zeros_like(scene(tmp_path / "image.png"), np.uint8)
    mask[50, 40:45] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ovam_labeler",
            "learn",
            str(tmp_path / "image.png"),
            str(tmp_path / "mask.png"),
            "--label",
            "speck",
        ],
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or (done.returncode == 2 and done.stderr.startswith("error: "))


def test_doctor_names_a_missing_model_folder_and_what_to_type(shell: Shell, tmp_path: Path) -> None:
    done = shell("doctor", code=1, OVAM_MODEL=str(tmp_path / "no-such-model"))
    assert "no-such-model" in done.stdout and "export OVAM_MODEL=" in done.stdout


def test_settings_errors_name_the_variable_and_hide_the_value(shell: Shell) -> None:
    done = shell("tokens", "list", code=2, OVAM_THREADS="many-secrets")
    assert "OVAM_THREADS" in done.stderr and "many-secrets" not in done.stderr
