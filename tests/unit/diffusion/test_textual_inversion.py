"""Textual inversions become tokens by going through the text encoder, as diffusers itself would use them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from backends.contract import Backend, BackendError, PromptTooLongError, ReadsInputVectors
from backends.diffusion.attributor import StableDiffusionAttributor
from token_store.contract import InvalidTokenError
from token_store.textual_inversion import unpack_inversion


@pytest.fixture
def attributor(backend: Backend) -> StableDiffusionAttributor:
    assert isinstance(backend.attributor, StableDiffusionAttributor)
    assert isinstance(backend.attributor, ReadsInputVectors)
    return backend.attributor


def input_rows(attributor: StableDiffusionAttributor, word: str) -> np.ndarray:
    """The input embeddings of a word's pieces."""
    tokenizer, copy, model = attributor.text._ready()
    ids = copy.encode(word).ids[1:-1]
    return model.get_input_embeddings().weight[ids].detach().numpy()


@pytest.mark.parametrize("word", ["cat", "zebra"])
def test_a_words_own_vectors_give_the_word(attributor: StableDiffusionAttributor, word: str) -> None:
    vectors = input_rows(attributor, word)
    assert len(vectors) == (1 if word == "cat" else 5)
    (tokens,) = attributor.words(word)
    wanted = tokens.embeddings[[0, *tokens.columns]]
    found = attributor.from_input_vectors(vectors)
    assert found.dtype == np.float32 and np.allclose(found, wanted.numpy(), atol=1e-5)
    attributor.token(found)


@pytest.mark.parametrize("count", [1, 3])
def test_diffusers_conditions_on_the_same_rows(
    attributor: StableDiffusionAttributor, folder: Path, tmp_path: Path, count: int
) -> None:
    from diffusers import StableDiffusionPipeline

    vectors = torch.randn(count, 32, generator=torch.Generator().manual_seed(count)) * 0.05
    file = tmp_path / "learned_embeds.safetensors"
    save_file({"<snail>": vectors if count > 1 else vectors[0]}, file)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    pipeline.load_textual_inversion(str(file))
    with torch.no_grad():
        embeds, _ = pipeline.encode_prompt("A photograph of a <snail>", "cpu", 1, False)

    inversion = unpack_inversion(file.read_bytes())
    assert inversion.name == "snail" and inversion.vectors.shape == (count, 32)
    found = attributor.from_input_vectors(inversion.vectors)
    place = len(attributor.text.encode("A photograph of a").embeddings) - 1
    assert found.shape == (1 + count, 32)
    assert np.allclose(found[0], embeds[0, 0].numpy(), atol=1e-5)
    assert np.allclose(found[1:], embeds[0, place : place + count].numpy(), atol=1e-5)


def test_the_text_encoder_is_left_as_it_was(attributor: StableDiffusionAttributor) -> None:
    before = attributor.text.conditioning("the cat")
    attributor.from_input_vectors(np.ones((2, 32), np.float32))
    assert torch.equal(attributor.text.conditioning("the cat"), before)
    assert not attributor.text._ready()[2].get_input_embeddings()._forward_hooks


def test_spans_of_a_text_with_a_gap(attributor: StableDiffusionAttributor) -> None:
    found = attributor.text.encode_vectors("the cat", torch.zeros(2, 32), "of a dog")
    assert found.text == "the cat * of a dog"
    assert found.rows(8, 9) == (3, 4) and found.rows(15, 18) == (7,)
    assert found.spans[0] is None and found.spans[-1] is None and len(found.embeddings) == len(found.spans) == 9


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (np.zeros((1, 31)), "takes \\(1 or more, 32\\)"),
        (np.zeros((0, 32)), "shape"),
        (np.zeros(32), "shape"),
        (np.full((1, 32), np.nan), "NaN"),
        ([["a"]], "no array"),
    ],
)
def test_bad_vectors_are_refused(attributor: StableDiffusionAttributor, vectors: np.ndarray, reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        attributor.from_input_vectors(vectors)


def test_more_vectors_than_the_encoder_takes_are_refused(attributor: StableDiffusionAttributor) -> None:
    with pytest.raises(PromptTooLongError, match="24"):
        attributor.from_input_vectors(np.zeros((30, 32), np.float32))


@pytest.mark.parametrize(
    ("tensors", "metadata", "name", "shape"),
    [
        ({"<cat-toy>": torch.ones(768)}, None, "cat-toy", (1, 768)),
        ({"<cat-toy>": torch.ones(4, 1024)}, None, "cat-toy", (4, 1024)),
        ({"style": torch.ones(2, 768, dtype=torch.float16)}, None, "style", (2, 768)),
        ({"emb_params": torch.ones(2, 768, dtype=torch.bfloat16)}, {"name": "easy"}, "easy", (2, 768)),
        ({"emb_params": torch.ones(1, 768)}, None, "", (1, 768)),
        ({"string_to_param.*": torch.ones(2, 768), "string_to_token.*": torch.tensor(265)}, {"name": "x"}, "x", (2, 768)),
    ],
)  # fmt: skip
def test_forms_of_files(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None, name: str, shape: tuple[int, int]
) -> None:
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    found = unpack_inversion((tmp_path / "x.safetensors").read_bytes())
    assert (found.name, found.vectors.shape, found.vectors.dtype) == (name, shape, np.float32)
    assert (found.vectors == 1).all() and str(shape[1] == 768 and "1.x" or "2.x") in found.family


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, "SDXL"),
        ({"a": torch.ones(768), "b": torch.ones(768)}, "2 tensors"),
        ({"a": torch.ones(2, 2, 768)}, "shape"),
        ({"a": torch.ones(80, 768)}, "shape"),
        ({"a": torch.full((768,), float("nan"))}, "NaN"),
        ({"a": torch.ones(768, dtype=torch.int32)}, "I32"),
    ],
)
def test_what_is_no_inversion_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], reason: str) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InvalidTokenError, match=reason):
        unpack_inversion((tmp_path / "x.safetensors").read_bytes())
