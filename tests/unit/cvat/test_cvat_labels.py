from __future__ import annotations

import json

import pytest

from ovam_labeler.domain import Label
from ovam_labeler.errors import BadConfigError
from ovam_labeler.tools.cvat.labels import form_of, parse_labels

#: As the Raw tab of CVAT's label constructor shows them.
RAW = [
    {"name": "défaut", "id": 7, "color": "#fff", "type": "mask",
     "attributes": [{"id": 1, "name": "prompt", "input_type": "text", "mutable": False, "values": ["scratch"],
                     "default_value": "scratch"}]},
    {"name": "tea pot", "type": "polygon", "attributes": []},
    {"name": "box", "type": "rectangle", "attributes": []},
    {"name": "tea pot", "type": "mask"},
    {"name": "", "type": "any"},
]  # fmt: skip


def test_names_words_and_forms_are_read_and_the_rest_is_said() -> None:
    config = parse_labels(json.dumps(RAW))
    assert config.labels == (Label("défaut", "scratch"), Label("tea pot"))
    assert form_of(config, "défaut") == "mask" and form_of(config, "tea pot") == "polygon"
    assert len(config.notices) == 3 and "'rectangle'" in config.notices[0]


@pytest.mark.parametrize(
    "config", ["", "[]", "{}", "[1]", "<View/>", '[{"name": "a", "type": "points"}]', "[" * 100_000]
)
def test_a_config_without_usable_labels_is_refused(config: str) -> None:
    with pytest.raises(BadConfigError) as caught:
        parse_labels(config)
    assert str(caught.value).endswith(".")
