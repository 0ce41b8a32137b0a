"""Words, tokens and maps without the UNet: where a noun's pieces are, whose embedding space it is, what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from random_pipeline import LIMIT, build
from safetensors.torch import load_file, save_file

from backends.contract import Backend, BackendError, Needs, PromptTooLongError, TokenExample, TokenRecipe
from backends.diffusion.attributor import StableDiffusionAttributor
from backends.diffusion.fingerprints import space_of
from backends.diffusion.key_projections import projections_of, read_projections
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.pipeline import load_pipeline
from backends.discovery import load_backend


@pytest.fixture(scope="module")
def attributor(backend: Backend) -> StableDiffusionAttributor:
    assert isinstance(backend.attributor, StableDiffusionAttributor)
    return backend.attributor


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionAttributor:
    """The same weights, read in pairs as the embedded model is."""
    folder = build(
        tmp_path_factory.mktemp("pair") / "model",
        attribution={"context": "pair", "template": "the {label}"},
        known_words=["Cat", "traffic  light"],
        calibration={
            "word_threshold": 0.3,
            "token_recipe": {"optimizer": "adam", "learning_rate": 1, "start": "thing_noun"},
        },
    )
    found = load_backend(str(folder)).attributor
    assert isinstance(found, StableDiffusionAttributor)
    return found


def pieces(attributor: StableDiffusionAttributor, prompt: str) -> list[str]:
    """Text of each row, ``""`` for special tokens."""
    encoded = attributor.text.encode(prompt)
    return ["" if s is None else encoded.text[slice(*s)] for s in encoded.spans]


def test_projections_read_alone_are_the_unets(folder: Path) -> None:
    opened = ModelFolder.open(str(folder))
    alone = read_projections(opened.weights("unet")[0], opened.config("unet"))
    whole = projections_of(load_pipeline(opened, "cpu").unet)
    assert list(alone) == list(whole) and len(alone) == 9
    for name, projection in whole.items():
        assert torch.equal(alone[name].weight, projection.weight)
        assert (alone[name].heads, alone[name].scale) == (projection.heads, projection.scale)


@pytest.mark.parametrize("heads", [8, (1, 2, 4, 4)])  # as Stable Diffusion 1.x and 2.x have them
def test_heads_are_read_from_the_configuration(heads: int | tuple[int, ...]) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=heads,
        norm_num_groups=8,
    )
    modules = dict(unet.named_modules())
    projections = projections_of(unet)
    assert len(projections) == 9
    for name, projection in projections.items():
        assert (projection.heads, projection.scale) == (modules[name].heads, modules[name].scale)


def test_heads_and_order_are_those_of_the_capture(backend: Backend, attributor: StableDiffusionAttributor) -> None:
    capture = backend.reader().capture(np.zeros((64, 64, 3), np.uint8), Needs())
    layers = capture.info.layout["queries"]
    assert [y["name"] for y in layers] == list(attributor.projections)
    assert [y["heads"] for y in layers] == [p.heads for p in attributor.projections.values()]
    assert [y["scale"] for y in layers] == [p.scale for p in attributor.projections.values()]


def test_space_depends_on_content_only(folder: Path, tmp_path: Path, backend: Backend) -> None:
    space = backend.attributor.fingerprint.space
    moved = shutil.copytree(folder, tmp_path / "somewhere else" / "other name")
    assert load_backend(str(moved)).attributor.fingerprint.space == space
    assert load_backend(str(moved)).reader_settings == backend.reader_settings

    def changed(file: Path, key: str) -> str:
        before = file.read_bytes()
        tensors = load_file(file)
        tensors[key] = tensors[key] + 1e-3
        save_file(tensors, file, metadata={"format": "pt"})
        try:
            return load_backend(str(moved)).attributor.fingerprint.space
        finally:
            file.write_bytes(before)

    unet, text = moved / "unet/diffusion_pytorch_model.safetensors", moved / "text_encoder/model.safetensors"
    to_k = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    norm = next(k for k in load_file(text) if k.endswith("final_layer_norm.weight"))
    spaces = {space, changed(unet, to_k), changed(text, norm)}
    assert len(spaces) == 3
    # A weight outside the embedding space leaves tokens valid, but captures are not the same.
    assert changed(unet, "conv_in.weight") == space
    vocabulary = (moved / "tokenizer/vocab.json").read_text()
    (moved / "tokenizer/vocab.json").write_text(vocabulary.replace('"cat</w>"', '"cab</w>"'))
    assert load_backend(str(moved)).attributor.fingerprint.space not in spaces


def test_captures_of_another_unet_have_other_settings(folder: Path, tmp_path: Path, backend: Backend) -> None:
    moved = shutil.copytree(folder, tmp_path / "m")
    file = moved / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] += 1e-3
    save_file(tensors, file, metadata={"format": "pt"})
    other = load_backend(str(moved))
    assert other.attributor.fingerprint.space == backend.attributor.fingerprint.space
    assert other.reader_settings != backend.reader_settings


def test_space_of_a_pipeline_in_memory(folder: Path, backend: Backend) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), safety_checker=None, requires_safety_checker=False)
    space = space_of(
        pipeline.text_encoder.state_dict().items(), pipeline.tokenizer.get_vocab(), projections_of(pipeline.unet)
    )
    assert space == backend.attributor.fingerprint.space


def test_both_saved_forms_of_a_tokenizer_are_one_space(folder: Path, tmp_path: Path, backend: Backend) -> None:
    from transformers import CLIPTokenizer

    moved = shutil.copytree(folder, tmp_path / "m")
    tokenizer = CLIPTokenizer.from_pretrained(moved / "tokenizer")
    shutil.rmtree(moved / "tokenizer")
    tokenizer.save_pretrained(moved / "tokenizer")
    assert (moved / "tokenizer/tokenizer.json").is_file() and not (moved / "tokenizer/vocab.json").is_file()
    other = load_backend(str(moved)).attributor
    assert other.fingerprint.space == backend.attributor.fingerprint.space
    assert torch.equal(other.words("zebra")[0].embeddings, backend.attributor.words("zebra")[0].embeddings)


def test_embeddings_are_those_of_the_plain_text_encoder(folder: Path, attributor: StableDiffusionAttributor) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    inputs = tokenizer(["A photograph of a cat"], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        expected = encoder(inputs.input_ids)[0][0]
    assert torch.allclose(attributor.text.conditioning("A photograph of a cat"), expected, atol=1e-6)
    (tokens,) = attributor.words("cat")
    # Start, five words, end: no padding competes in the softmax.
    assert tokens.embeddings.shape == (7, 32) and tokens.columns == (5,)
    assert torch.allclose(tokens.embeddings, expected[:7], atol=1e-5)


def test_a_noun_of_several_pieces(attributor: StableDiffusionAttributor) -> None:
    assert pieces(attributor, "A photograph of a zebra cat") == [
        "", "A", "photograph", "of", "a", "z", "e", "b", "r", "a", "cat", ""
    ]  # fmt: skip
    (tokens,) = attributor.words("zebra cat")
    assert tokens.columns == (5, 6, 7, 8, 9, 10)
    noun = attributor.noun("zebra cat")
    assert noun.dtype == np.float32
    assert np.allclose(noun, tokens.embeddings[5:11].mean(0).numpy())


def test_maps_of_pieces_are_averaged(
    backend: Backend, attributor: StableDiffusionAttributor, photo: np.ndarray
) -> None:
    from backends.attention.heatmaps import heat_maps
    from backends.attention.queries import QueryBundle

    capture = backend.reader().capture(photo, Needs())
    (tokens,) = attributor.words("zebra")
    bundle = QueryBundle.from_tensors(capture.tensors, capture.info.layout)
    every = heat_maps(bundle, attributor.projections, tokens.embeddings)
    found = attributor.maps(capture, [attributor.words("cat"), attributor.words("zebra")])
    assert torch.allclose(found[1], every[5:10].mean(0), atol=1e-6)
    assert torch.equal(found[1:], attributor.maps(capture, [attributor.words("zebra")]))
    assert found.min() >= 0 and found.max() <= 1 and found.std() > 1e-3


@pytest.mark.parametrize(
    ("label", "prompt", "columns"),
    [
        ("cat", "the cat on the beach", (2,)),
        ("CAT", "The  Cat on the beach", (2,)),  # case and white space do not matter
        ("cat", "a cat, the cat", (2, 5)),  # every occurrence counts
        ("a", "a cat of a dog", (1, 4)),  # words, not letters inside words
        ("at", "the cat", (2,)),  # inside a word where it stands nowhere alone
        ("on the", "cat on the beach", (2, 3)),
        ("dog", "the cat", (1, 2)),  # not in the prompt: the prompt's own words are the class
    ],
)
def test_prompts(attributor: StableDiffusionAttributor, label: str, prompt: str, columns: tuple[int, ...]) -> None:
    (tokens,) = attributor.words(label, prompt)
    assert tokens.columns == columns


def test_pieces_are_found_where_the_tokenizer_merges_differently(attributor: StableDiffusionAttributor) -> None:
    """``cat.`` and ``cat_07`` split differently from ``cat`` alone; the characters decide."""
    (tokens,) = attributor.words("cat_07", "the cat_07.")
    assert "".join(pieces(attributor, "the cat_07.")[c] for c in tokens.columns).startswith("cat_07")
    assert tokens.columns[0] == 2


@pytest.mark.parametrize(
    "label", ["defect_07", "Ölfleck", "naïve café", "🦓", "...", "缺陷", "<|endoftext|>", "{label}", "a" * 18]
)
def test_labels_that_are_no_english_words(attributor: StableDiffusionAttributor, label: str) -> None:
    (tokens,) = attributor.words(label)
    n = len(tokens.embeddings)
    assert all(5 <= c < n - 1 for c in tokens.columns) and len(tokens.columns) == n - 6
    assert np.isfinite(attributor.noun(label)).all()


@pytest.mark.parametrize("label", ["", "  \n "])
def test_an_empty_label_is_refused(attributor: StableDiffusionAttributor, label: str) -> None:
    with pytest.raises(BackendError, match="label is empty"):
        attributor.words(label)


def test_half_a_surrogate_pair_is_refused(attributor: StableDiffusionAttributor) -> None:
    with pytest.raises(BackendError, match="surrogate"):
        attributor.words("cat \ud83e")


@pytest.mark.parametrize("label", ["zebra " * 5, "x" * 50_000])
def test_too_long_is_refused_never_cut(attributor: StableDiffusionAttributor, label: str) -> None:
    with pytest.raises(PromptTooLongError, match=f"takes {LIMIT}"):
        attributor.words(label)


def test_pairs(pair: StableDiffusionAttributor, attributor: StableDiffusionAttributor) -> None:
    query = pair.words("zebra")
    assert len(query) == 5 and all(t.embeddings.shape == (2, 32) and t.columns == (1,) for t in query)
    encoded = pair.text.encode("the zebra")
    for row, tokens in enumerate(query, start=2):
        assert torch.equal(tokens.embeddings, encoded.embeddings[[0, row]])
    assert pair.fingerprint.space == attributor.fingerprint.space
    assert set(pair.fingerprint.differences(attributor.fingerprint)) == {"context", "template"}


def test_own_defaults_and_the_papers(pair: StableDiffusionAttributor, attributor: StableDiffusionAttributor) -> None:
    paper, own = attributor.calibration, pair.calibration
    assert (paper.word_threshold, paper.token_threshold) == (0.4, 0.8)
    assert paper.token_recipe == TokenRecipe("sgd", 500, 100.0, 120, 0.7)
    assert (own.word_threshold, own.token_threshold) == (0.3, 0.8)
    assert own.token_recipe.learning_rate == 1.0 and own.token_recipe.start == "thing_noun"


def test_known_words(pair: StableDiffusionAttributor, attributor: StableDiffusionAttributor) -> None:
    assert pair.knows("cat") and pair.knows(" CAT ") and pair.knows("traffic_light")
    assert not pair.knows("zebra")
    assert attributor.knows("zebra")


@pytest.mark.parametrize(
    ("embedding", "sentence"),
    [
        (np.zeros((1, 32)), "shape"),
        (np.zeros((2, 31)), "shape"),
        (np.zeros(32), "shape"),
        (np.full((2, 32), np.nan), "NaN"),
        (np.full((2, 32), 1e300), "infinite"),
        (["a", "b"], "no array of numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_tokens_are_refused(attributor: StableDiffusionAttributor, embedding: np.ndarray, sentence: str) -> None:
    with pytest.raises(BackendError, match=sentence):
        attributor.token(embedding)


def test_a_token_made_of_a_words_pair_is_that_word(
    pair: StableDiffusionAttributor, backend: Backend, photo: np.ndarray
) -> None:
    capture = backend.reader().capture(photo, Needs())
    word = pair.words("cat")
    token = pair.token(word[0].embeddings.numpy())
    assert token[0].columns == (1,)
    assert torch.equal(pair.maps(capture, [word]), pair.maps(capture, [token]))


def test_logits_are_those_of_the_plain_formula(
    attributor: StableDiffusionAttributor, backend: Backend, photo: np.ndarray
) -> None:
    """Class columns' mean logit minus the background's, averaged over token sets, layers, heads and steps."""
    from backends.attention.heatmaps import heat_maps
    from backends.attention.queries import QueryBundle

    capture = backend.reader().capture(photo, Needs())
    queries = [attributor.words("red car"), attributor.words("dog") + attributor.words("cat")]
    found = attributor.logits(capture, queries)
    bundle = QueryBundle.from_tensors(capture.tensors, capture.info.layout)
    for c, query in enumerate(queries):
        expected = torch.zeros(bundle.size)
        for tokens in query:
            bare = heat_maps(bundle, attributor.projections, tokens.embeddings, activation="linear")
            expected += (bare[list(tokens.columns)].mean(0) - bare[0]) / len(query)
        assert torch.allclose(found[c], expected, atol=1e-4 * float(expected.abs().max()))


def test_gradients_reach_the_embeddings(
    attributor: StableDiffusionAttributor, backend: Backend, photo: np.ndarray
) -> None:
    from dataclasses import replace

    capture = backend.reader().capture(photo, Needs())
    (tokens,) = attributor.words("cat")
    free = tokens.embeddings.clone().requires_grad_()
    attributor.maps(capture, [(replace(tokens, embeddings=free),)]).sum().backward()
    assert free.grad is not None and free.grad.abs().max() > 0


def example(backend: Backend, photo: np.ndarray) -> TokenExample:
    target = np.zeros(photo.shape[:2], np.float32)
    y, x = np.mgrid[:90, :150]
    target[(y - 40) ** 2 + (x - 90) ** 2 < 900] = 1
    return TokenExample(backend.reader().capture(photo, Needs()), target, np.ones_like(target))


@pytest.mark.parametrize("start", ["noun", "thing_noun"])
def test_learning_lowers_the_loss(
    attributor: StableDiffusionAttributor, backend: Backend, photo: np.ndarray, start: str
) -> None:
    recipe = TokenRecipe(optimizer="adam", epochs=12, learning_rate=0.2, start=start)
    fit = attributor.learn([example(backend, photo)], recipe, label="zebra")
    assert fit.embedding.shape == (2, 32) and fit.embedding.dtype == np.float32
    assert fit.losses[fit.best_epoch] == min(fit.losses) < 0.9 * fit.losses[0]
    attributor.token(fit.embedding)


def test_starts(attributor: StableDiffusionAttributor, backend: Backend, photo: np.ndarray) -> None:
    """With a vanishing step the best embedding is the start itself."""
    one, still = [example(backend, photo)], {"optimizer": "sgd", "epochs": 1, "learning_rate": 1e-12}
    background, noun, thing = attributor.background(), attributor.noun("zebra"), attributor.noun("thing")
    assert np.allclose(background, attributor.text.encode("cat").embeddings[0], atol=1e-6)
    by_noun = attributor.learn(one, TokenRecipe(start="noun", **still), label="zebra").embedding
    half_way = attributor.learn(one, TokenRecipe(start="thing_noun", **still), label="zebra").embedding
    assert np.allclose(by_noun, np.stack([background, noun]))
    assert np.allclose(half_way, np.stack([background, (noun + thing) / 2]), atol=1e-6)
    given = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    kept = attributor.learn(one, TokenRecipe(start="given", **still), label="zebra", start=given).embedding
    assert np.allclose(kept, given)
    for recipe, start in ((TokenRecipe(start="given"), None), (TokenRecipe(start="noun"), given)):
        with pytest.raises(BackendError, match="start"):
            attributor.learn(one, recipe, label="zebra", start=start)


def test_many_threads(attributor: StableDiffusionAttributor) -> None:
    labels = ["cat", "dog", "zebra", "thing", "beach"] * 8
    alone = {label: attributor.words(label)[0].embeddings for label in set(labels)}
    with ThreadPoolExecutor(8) as pool:
        for label, query in zip(labels, pool.map(attributor.words, labels), strict=True):
            assert torch.equal(query[0].embeddings, alone[label])


def test_learned_tokens_need_no_text_encoder_and_no_diffusers(folder: Path) -> None:
    """A process that serves learned tokens from cached captures imports neither library."""
    code = (
        "import sys, numpy as np; from backends.discovery import load_backend;"
        "a = load_backend(sys.argv[1]).attributor; a.token(np.zeros((2, a.embedding_size)));"
        "print(a.fingerprint.space, 'diffusers' in sys.modules, 'transformers' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.split()[1:] == ["False", "False"]
