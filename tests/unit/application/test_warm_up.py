"""A server that starts reads and fits once on its own, so that the first annotator does not wait for a compiler."""

from __future__ import annotations

import logging

import pytest
from colour_model import ColourModel

from ovam_labeler.application import build_application
from ovam_labeler.model_state import practise
from ovam_labeler.settings import Settings


def test_one_read_and_one_fit_and_the_next_start_reads_nothing(settings: Settings) -> None:
    for passes in (1, 0):
        model = ColourModel()
        with build_application(settings, loader=model.load) as app:
            practise(app)
            assert (model.reader.unet_passes, model.attributor.fits) == (passes, 1)
            assert app.store.list_tokens() == []


def test_a_failure_is_told_and_stops_nothing(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    model = ColourModel()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler here")

    model.attributor.learn = fail  # type: ignore[method-assign,assignment]
    with build_application(settings, loader=model.load) as app, caplog.at_level(logging.INFO):
        practise(app)
    assert "no compiler here" in caplog.text
