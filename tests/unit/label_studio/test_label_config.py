from __future__ import annotations

import pytest
from protocol_helpers import CONFIG

from ovam_labeler.domain import Label
from ovam_labeler.errors import BadConfigError
from ovam_labeler.tools.label_studio.label_config import parse_label_config


def config(inside: str, image: str = '<Image name="image" value="$image"/>') -> str:
    return f'<View>{image}<BrushLabels name="tag" toName="image">{inside}</BrushLabels></View>'


def test_reads_labels_in_order_and_verbatim() -> None:
    parsed = parse_label_config(config('<Label value=" Tea  pot "/><Label value="défaut_07"/><Label value="a/b"/>'))
    assert [label.name for label in parsed.labels] == [" Tea  pot ", "défaut_07", "a/b"]
    assert (parsed.image_key, parsed.control, parsed.to_name, parsed.region) == ("image", "tag", "image", "brushlabels")


def test_alias_is_what_regions_carry_and_hints_become_prompts() -> None:
    parsed = parse_label_config(
        config(
            '<Label value="Katze" alias="cat"/><Label value="K9" predicted_values="dog, hound"/><Label value="x" prompt="a ship"/>'
        )
    )
    assert parsed.labels == (Label("cat"), Label("K9", "dog"), Label("x", "a ship"))


def test_first_usable_control_is_written_the_others_are_noticed() -> None:
    parsed = parse_label_config(
        """<View><Image name="a" value="$left"/><Image name="b" value="$right"/>
        <BrushLabels name="lost" toName="nowhere"><Label value="x"/></BrushLabels>
        <BrushLabels name="one" toName="b"><Label value="x"/><Label value="x"/></BrushLabels>
        <BrushLabels name="two" toName="a"><Label value="y"/></BrushLabels></View>"""
    )
    assert (parsed.control, parsed.image_key, [x.name for x in parsed.labels]) == ("one", "right", ["x"])
    assert [word for word in ("lost", "twice", "two", "'a'") if not any(word in n for n in parsed.notices)] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty"),
        ("<View></View>", "no image tag"),
        (config("<Label value='x'/>", image=""), "no image tag"),
        (config("<Label value='x'/>", image="<Image name='image' value='fixed.png'/>"), 'value="\\$image"'),
        (config(""), "no usable BrushLabels"),
        ('<View><Image name="image" value="$image"/></View>', "no BrushLabels"),
        (
            '<View><Image name="i" value="$i"/><PolygonLabels name="p" toName="i"><Label value="x"/></PolygonLabels></View>',
            "no BrushLabels",
        ),
        ("<View>", "not well-formed"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "entities"),
        ("<a>" * 50_000, "not well-formed|too deeply"),
        ("x" * 1_000_001, "1000001 characters"),
    ],
)
def test_unusable_configs_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BadConfigError, match=sentence):
        parse_label_config(text)


def test_the_captured_config() -> None:
    assert [label.name for label in parse_label_config(CONFIG).labels] == ["disc", "bar"]
