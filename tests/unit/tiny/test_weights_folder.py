"""The shipped folder: a Stable Diffusion pipeline of bounded size, with settings and a split that hold together."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ovam_labeler
from backends.diffusion.calibration import attribution_of, calibration_of, reading_of
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.tiny.loader import WEIGHTS

PACK = Path(ovam_labeler.__file__).parent / "demo/assets/held_out_sprites.zip"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@pytest.fixture(scope="module")
def split() -> dict:
    return json.loads((WEIGHTS / "split.json").read_text())


@pytest.fixture(scope="module")
def pack() -> list[dict]:
    with zipfile.ZipFile(PACK) as archive:
        return json.loads(archive.read("index.json"))["sprites"]


def test_all_parts_are_there_and_small_enough_to_ship() -> None:
    index = json.loads((WEIGHTS / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline" and set(PARTS) <= set(index)
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) <= 25_000_000


def test_only_json_and_half_precision_safetensors() -> None:
    for path in (p for p in WEIGHTS.rglob("*") if p.is_file()):
        assert path.suffix in {".json", ".safetensors"}, path
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            assert {v["dtype"] for k, v in header.items() if k != "__metadata__"} == {"F16"}, path


def test_weights_are_finite() -> None:
    from safetensors.numpy import load_file

    for path in WEIGHTS.rglob("*.safetensors"):
        assert all(np.isfinite(v.astype(np.float32)).all() for v in load_file(path).values()), path


def test_settings_pass_the_application_s_own_checks() -> None:
    folder = ModelFolder.open(str(WEIGHTS))
    assert attribution_of(folder).context == "pair"
    assert reading_of(folder).timesteps == (50,)
    calibration = calibration_of(folder)
    assert 0 < calibration.word_threshold < 1 and 0 < calibration.token_threshold < 1
    assert folder.settings["name"] == "ovam-tiny"


def test_the_pipeline_loads_and_speaks_the_tokenizer_s_language() -> None:
    from transformers import CLIPTextModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(WEIGHTS / "tokenizer")
    text = CLIPTextModel.from_pretrained(WEIGHTS / "text_encoder")
    assert text.config.vocab_size == len(tokenizer)
    assert text.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in tokenizer("defect_07 猫", add_special_tokens=False)["input_ids"]


def test_splits_do_not_touch(split: dict) -> None:
    known = set(split["known"])
    assert not known & {*split["novel_test"], *split["novel_validation"], *split["left_out_siblings"]}
    assert {*split["known_test"], *split["known_validation"]} <= known
    assert not set(split["known_test"]) & set(split["known_validation"])
    assert (len(split["novel_test"]), len(split["novel_validation"])) == (66, 14)
    assert "cat face" in split["known_words"] and "thing" in split["known_words"]
    assert not set(split["novel_test"]) & set(split["known_words"])


def test_the_sprite_pack_holds_only_what_training_never_saw(split: dict, pack: list[dict]) -> None:
    novel = {*split["novel_test"], *split["novel_validation"]}
    for sprite in pack:
        if sprite["kind"] == "novel":
            assert sprite["concept"] in novel
        else:
            assert sprite["family"] in split["held_out_families"][sprite["concept"]]
    assert {s["concept"] for s in pack if s["kind"] == "novel"} == novel


def test_the_sprite_pack_ships_no_share_alike_style(split: dict, pack: list[dict]) -> None:
    assert not {s["style"] for s in pack} & set(split["test_only_styles"])
    assert {s["licence"] for s in pack} <= {"Apache-2.0", "MIT", "CC-BY-4.0"}
