"""What is recorded is what the UNet computed, of the half that was asked for, and recording changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends.attention.heatmaps import heat_maps
from backends.attention.queries import QueryBundle
from backends.attention.self_attention import ReceivedMaps
from backends.contract import Backend, BackendError, Capture, Needs
from backends.diffusion.capture import Recorder
from backends.diffusion.key_projections import projections_of
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.pipeline import load_pipeline

STEPS = {"steps": 3, "size": (96, 128)}


def queries(capture: Capture) -> QueryBundle:
    return QueryBundle.from_tensors(capture.tensors, capture.info.layout)


def first_step(capture: Capture) -> list[torch.Tensor]:
    return [layer.plain()[0] for layer in queries(capture).layers]


@pytest.fixture()
def pipeline(folder: Path) -> Any:
    return load_pipeline(ModelFolder.open(str(folder)), "cpu")


def test_image_is_the_plain_pipelines_bit_for_bit(backend: Backend, folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(str(folder), safety_checker=None, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    expected = plain(
        "a cat on the beach",
        negative_prompt="a dog",
        num_inference_steps=3,
        guidance_scale=5.0,
        height=96,
        width=128,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    needs = Needs(self_attention=(1, 2))
    made = backend.reader().generate(
        "a cat on the beach", needs, seed=7, negative_prompt="a dog", guidance=5.0, **STEPS
    )
    assert np.array_equal(made.image, (expected * 255).round().astype(np.uint8))


def test_conditional_half_is_kept(backend: Backend) -> None:
    reader = backend.reader()
    one = reader.generate("a cat", Needs(), seed=1, negative_prompt="", **STEPS).capture
    other = reader.generate("a cat", Needs(), seed=1, negative_prompt="photograph of the dog", **STEPS).capture
    changed = reader.generate("a dog", Needs(), seed=1, negative_prompt="", **STEPS).capture
    alone = reader.generate("a cat", Needs(), seed=1, guidance=1.0, **STEPS).capture
    assert one.info.cfg_half == "conditional"
    # In the first step the latents are the same noise, so only the text of the kept half can make a difference.
    for a, b, _, d in zip(*map(first_step, (one, other, changed, alone)), strict=True):
        assert torch.equal(a, b)
        assert torch.allclose(a, d, atol=4e-3)
    assert max((a - c).abs().max() for a, c in zip(first_step(one), first_step(changed), strict=True)) > 1e-2


def test_unconditional_half_on_request(pipeline: Any) -> None:
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 12, 16).repeat(2, 1, 1, 1)
    text = torch.randn(2, 24, 32)
    kept = {}
    for half in ("conditional", "unconditional"):
        with (
            torch.no_grad(),
            Recorder(pipeline.unet, Needs(), (12, 16), half=half, guided=True, dtype=torch.float32) as r,
        ):
            pipeline.unet(latents, 500, text)
        kept[half] = r.bundle().layers[-1].queries
    for half, row in (("unconditional", 0), ("conditional", 1)):
        with torch.no_grad(), Recorder(pipeline.unet, Needs(), (12, 16), dtype=torch.float32) as r:
            pipeline.unet(latents[:1], 500, text[row : row + 1])
        assert torch.allclose(r.bundle().layers[-1].queries, kept[half], atol=1e-4)
    assert (kept["conditional"] - kept["unconditional"]).abs().max() > 0.1


class Probabilities:
    """Attention processor of the textbook kind, which keeps its probabilities."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> torch.Tensor:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(p) for p in (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        )
        self.kept = attn.get_attention_scores(query, key, None)
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(self.kept, value)))


@pytest.fixture()
def watched(pipeline: Any) -> tuple[Any, dict[str, Probabilities]]:
    watchers = {name: Probabilities() for name in pipeline.unet.attn_processors}
    pipeline.unet.set_attn_processor(dict(watchers))
    return pipeline, {name.removesuffix(".processor"): w for name, w in watchers.items()}


def test_maps_of_the_models_own_text_are_its_cross_attention(watched: tuple[Any, dict[str, Probabilities]]) -> None:
    """With X' = X, Eq. 5 is the extraction of the cross-attention matrices themselves (section 3.2)."""
    pipeline, watchers = watched
    torch.manual_seed(1)
    text = torch.randn(1, 7, 32)
    with torch.no_grad(), Recorder(pipeline.unet, Needs(), (12, 16), dtype=torch.float32) as recorder:
        pipeline.unet(torch.randn(1, 4, 12, 16), 300, text)
    bundle = recorder.bundle()
    assert all("mid" not in layer.name for layer in bundle.layers) and len(bundle.layers) == 9
    projections = projections_of(pipeline.unet)
    for layer in bundle.layers:
        expected = watchers[layer.name].kept.mean(0).T.reshape(7, layer.height, layer.width)
        found = heat_maps(QueryBundle((layer,)), projections, text[0])
        assert torch.allclose(found, expected, atol=1e-5)
        assert expected.std() > 1e-3


def test_received_self_attention(watched: tuple[Any, dict[str, Probabilities]]) -> None:
    """Eq. 8 adds over the queries; the sum over the keys would be the same number everywhere."""
    pipeline, watchers = watched
    torch.manual_seed(1)
    needs = Needs(queries=False, self_attention=(1, 4))
    with torch.no_grad(), Recorder(pipeline.unet, needs, (12, 20)) as recorder:
        pipeline.unet(torch.randn(1, 4, 12, 20), 300, torch.randn(1, 7, 32))
    maps = recorder.received().maps
    finest = [n for n in watchers if n.endswith("attn1") and ("down_blocks.0" in n or "up_blocks.3" in n)]
    assert len(finest) == 3
    expected = sum(watchers[n].kept.sum((0, 1)) for n in finest).reshape(12, 20)
    assert torch.allclose(maps[1], expected, rtol=1e-4)
    assert maps[4].shape == (3, 5)
    assert maps[1].std() > 0.01 * maps[1].mean()


def test_affinity_is_the_finest_self_attention_of_the_last_pass(watched: tuple[Any, dict[str, Probabilities]]) -> None:
    pipeline, watchers = watched
    torch.manual_seed(1)
    text = torch.randn(2, 7, 32)
    with (
        torch.no_grad(),
        Recorder(pipeline.unet, Needs(), (12, 20), images=2, dtype=torch.float32, affinity=True) as recorder,
    ):
        for step in (300, 100):
            pipeline.unet(torch.randn(2, 4, 12, 20), step, text)
    finest = [n for n in watchers if n.endswith("attn1") and ("down_blocks.0" in n or "up_blocks.3" in n)]
    maps = torch.rand(3, 12, 20)
    for image in (0, 1):
        found = recorder.affinity(image)
        assert found.grid == (12, 20) and found.queries.shape[0] == 3
        # kept: (images x heads, pixels, pixels)
        attention = torch.stack([watchers[n].kept.unflatten(0, (2, -1))[image].mean(0) for n in finest]).mean(0)
        expected = torch.einsum("ij,cj->ci", attention, maps.flatten(1)).reshape(3, 12, 20)
        torch.testing.assert_close(found.spread(maps), expected, rtol=1e-4, atol=1e-5)


def test_received_map_of_an_image_is_not_constant(backend: Backend, photo: np.ndarray) -> None:
    capture = backend.reader().capture(photo, Needs(queries=False, self_attention=(1,)))
    received = ReceivedMaps.from_tensors(capture.tensors, capture.info.layout).finest()
    assert received.shape == capture.info.latent_size
    assert received.std() > 1e-3 * received.mean()


def test_processors_and_hooks_stay_as_they_were(backend: Backend, pipeline: Any) -> None:
    unet = pipeline.unet
    unet.set_attention_slice(1)
    before = dict(unet.attn_processors)
    hooks = [len(m._forward_hooks) for m in unet.modules()]
    with pytest.raises(RuntimeError), torch.no_grad(), Recorder(unet, Needs(self_attention=(1,)), (8, 8)) as recorder:
        unet(torch.randn(1, 4, 8, 8), 10, torch.randn(1, 7, 32))
        raise RuntimeError("stopped by the user")
    assert dict(unet.attn_processors) == before
    assert [len(m._forward_hooks) for m in unet.modules()] == hooks
    assert recorder.timesteps == [10] and len(recorder.bundle().layers) == 9


def test_neighbouring_steps_are_averaged(pipeline: Any) -> None:
    torch.manual_seed(2)
    latents, text = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)

    def record(group_of: Any) -> torch.Tensor:
        with torch.no_grad(), Recorder(pipeline.unet, Needs(), (8, 8), dtype=torch.float32, group_of=group_of) as r:
            for step in (900, 600, 300, 100):
                pipeline.unet(latents, step, text)
        assert r.timesteps == [900, 600, 300, 100]
        return r.bundle().layers[0].queries

    alone, grouped = record(None), record(lambda index: index * 2 // 4)
    assert alone.shape[0] == 4 and grouped.shape[0] == 2
    assert torch.allclose(grouped, alone.reshape(2, 2, *alone.shape[1:]).mean(1), atol=1e-6)


@pytest.mark.parametrize(
    ("needs", "options", "sentence"),
    [
        (Needs(self_attention=(3,)), {}, "factor 3"),
        (Needs(self_attention=(16,)), {}, "factor 16"),
        (Needs(self_attention=(8,)), {}, "no attention at down-sampling factor 8"),
        (Needs(), {"half": "left"}, "cfg_half is 'left'"),
        (Needs(), {"half": "unconditional"}, "no unconditional half"),
    ],
)
def test_what_cannot_be_recorded_is_refused(pipeline: Any, needs: Needs, options: Any, sentence: str) -> None:
    with pytest.raises(BackendError, match=sentence), Recorder(pipeline.unet, needs, (8, 8), **options):
        pass
    assert not any(m._forward_hooks for m in pipeline.unet.modules())


def test_fused_projections_are_refused(pipeline: Any) -> None:
    attention = pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    attention.fused_projections = True
    with pytest.raises(BackendError, match="fused"), Recorder(pipeline.unet, Needs(), (8, 8)):
        pass
    attention.fused_projections = False


def test_another_batch_than_announced_is_refused(pipeline: Any) -> None:
    with pytest.raises(BackendError, match="batch of 2"), torch.no_grad(), Recorder(pipeline.unet, Needs(), (8, 8)):
        pipeline.unet(torch.randn(2, 4, 8, 8), 10, torch.randn(2, 7, 32))
