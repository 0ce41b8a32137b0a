from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from backends.attention.heatmaps import class_maps
from backends.attention.queries import QueryBundle
from backends.attention.self_attention import ReceivedMaps
from backends.contract import BackendError, Capture, CaptureInfo, MaskMethod, Needs, TokenSet
from backends.methods.ovam import OVAM, OVAM_SELF_ATTENTION, Ovam


@pytest.fixture
def attributor(projections):
    """The part of an attributor the method uses, over the made-up model."""

    def maps(capture: Capture, queries) -> torch.Tensor:
        return class_maps(QueryBundle.from_tensors(capture.tensors, capture.info.layout), projections, queries)

    return SimpleNamespace(maps=maps)


@pytest.fixture
def capture(make_bundle) -> Capture:
    bundle = make_bundle()
    received = ReceivedMaps({1: torch.rand(8, 12, generator=torch.Generator().manual_seed(8)) + 3})
    info = CaptureInfo("generated", (64, 96), (8, 12), (0,), layout={**bundle.layout(), **received.layout()})
    return Capture(info, {**bundle.to_tensors(), **received.to_tensors()})


def test_needs() -> None:
    assert isinstance(OVAM, MaskMethod) and (OVAM.name, OVAM_SELF_ATTENTION.name) == ("ovam", "ovam-self-attention")
    assert OVAM.needs(None) == Needs(queries=True)  # type: ignore[arg-type]
    assert OVAM_SELF_ATTENTION.needs(None) == Needs(queries=True, self_attention=(1,))  # type: ignore[arg-type]


def test_plain_ovam_is_the_attributors_map(attributor, capture, embeddings) -> None:
    queries = [(TokenSet(embeddings(4), (1,)),), (TokenSet(embeddings(2), (1,)),)]
    assert torch.equal(OVAM.maps(attributor, capture, queries), attributor.maps(capture, queries))


def test_words_and_learned_tokens_take_the_papers_alpha(attributor, capture, embeddings) -> None:
    """The factor runs from alpha to 1: 0.85 for a prompt's word, 0.95 for two optimised tokens (section 4.1)."""
    queries = [(TokenSet(embeddings(4), (1,)),), (TokenSet(embeddings(2), (1,)),)]
    factor = OVAM_SELF_ATTENTION.maps(attributor, capture, queries) / attributor.maps(capture, queries)
    for found, alpha in zip(factor, (0.85, 0.95), strict=True):
        assert float(found.min()) == pytest.approx(alpha, abs=1e-4)
        assert float(found.max()) == pytest.approx(1.0, abs=1e-4)


def test_a_capture_without_self_attention_is_named(attributor, capture, embeddings) -> None:
    bare = Capture(
        CaptureInfo("generated", (64, 96), (8, 12), (0,), layout={"queries": capture.info.layout["queries"]}),
        capture.tensors,
    )
    query = [(TokenSet(embeddings(2), (1,)),)]
    with pytest.raises(BackendError, match=r"Needs\(self_attention=\(1,\)\)"):
        Ovam(self_attention=True).maps(attributor, bare, query)
    assert OVAM.maps(attributor, bare, query).shape == (1, 8, 12)
    assert OVAM_SELF_ATTENTION.maps(attributor, bare, []).shape == (0, 8, 12)


def test_linear_is_the_sigmoid_of_the_mean_logit(make_bundle, projections, embeddings) -> None:
    from backends.attention.heatmaps import heat_maps
    from backends.methods.linear import OVAM_LINEAR

    class Source:
        def logits(self, capture, queries):
            x = queries[0][0].embeddings
            return heat_maps(make_bundle(), projections, (x[1] - x[0])[None], activation="linear")

    x = embeddings(2)
    found = OVAM_LINEAR.maps(Source(), None, [(TokenSet(x, (1,)),)])  # type: ignore[arg-type]
    layers, total = make_bundle().layers, 0
    for y in layers:
        keys = projections[y.name].keys(x[1] - x[0])
        mean = torch.einsum("thpd,hd->p", y.queries, keys).view(1, 1, y.height, y.width) / (y.steps * y.heads)
        total = total + torch.nn.functional.interpolate(mean, (8, 12), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, torch.sigmoid(total / len(layers)), rtol=0, atol=1e-5)
    with pytest.raises(BackendError, match="offers? no logits|does not offer"):
        OVAM_LINEAR.maps(object(), None, [(TokenSet(x, (1,)),)])  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [OVAM, OVAM_SELF_ATTENTION])
def test_a_map_does_not_hang_on_the_classes_asked_for_with_it(attributor, capture, embeddings, method: Ovam) -> None:
    queries = [(TokenSet(embeddings(n), (1,)),) for n in (2, 4, 2, 3)]
    together = method.maps(attributor, capture, queries)
    for k, query in enumerate(queries):
        torch.testing.assert_close(method.maps(attributor, capture, [query])[0], together[k], rtol=1e-5, atol=1e-6)
