from __future__ import annotations

import pytest
from protocol_helpers import CONFIG

from ovam_labeler.domain import Label
from ovam_labeler.errors import BadConfigError
from ovam_labeler.tools.contract import Control, ImageField
from ovam_labeler.tools.label_studio.label_config import control_of, labels_on, parse_label_config


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


def test_hints_are_prompts_unless_they_are_instructions() -> None:
    parsed = parse_label_config(
        config(
            '<Label value="a" hint="a small boat"/><Label value="b" hint="Mark every boat that lies fully inside the picture"/>'
            '<Label value="c" hint="a boat" predicted_values=" , ship"/>'
        )
    )
    assert parsed.labels == (Label("a", "a small boat"), Label("b"), Label("c", "ship"))
    assert any("'b'" in note and "no prompt" in note for note in parsed.notices)


def test_every_control_of_every_picture_is_read() -> None:
    parsed = parse_label_config(
        """<View><Image name="a" value="$left"/><Image name="b" value="$right"/><Image name="c" valueList="$more"/>
        <BrushLabels name="lost" toName="nowhere"><Label value="x"/></BrushLabels>
        <BrushLabels name="one" toName="b"><Label value="x" prompt="ship"/><Label value="x"/></BrushLabels>
        <PolygonLabels name="two" toName="a"><Label value="y"/><Label value="x"/></PolygonLabels>
        <BitmaskLabels name="three" toName="b"><Label value="x"/><Label value="z"/></BitmaskLabels>
        <KeyPointLabels name="kp" toName="b"><Label value="k"/></KeyPointLabels></View>"""
    )
    assert (parsed.control, parsed.image_key, [x.name for x in parsed.labels]) == ("one", "right", ["x", "y", "z"])
    assert parsed.images == (ImageField("a", "left"), ImageField("b", "right"))
    assert [(c.name, c.to_name, c.form) for c in parsed.controls] == [
        ("one", "b", "brushlabels"),
        ("two", "a", "polygonlabels"),
        ("three", "b", "bitmasklabels"),
    ]
    assert [x.prompt for x in parsed.controls[1].labels] == [None, "ship"]
    assert [x.name for x in labels_on(parsed, "b")] == ["x", "z"]
    assert control_of(parsed, "b", "x") == parsed.controls[0] and control_of(parsed, "b", "z") == parsed.controls[2]
    assert control_of(parsed, "a", "z") is None
    assert [word for word in ("lost", "twice", "'c'") if not any(word in n for n in parsed.notices)] == []


@pytest.mark.parametrize(
    ("tag", "form"), [("Brush", "brush"), ("MagicWand", "magicwand"), ("Bitmask", "bitmask"), ("Polygon", "polygon")]
)
def test_tags_that_draw_for_labels_are_pairs(tag: str, form: str) -> None:
    parsed = parse_label_config(
        f"""<View><Image name="image" value="$image"/><{tag} name="draw" toName="image"/>
        <Labels name="labels" toName="image"><Label value="disc"/></Labels></View>"""
    )
    assert parsed.controls == (Control("draw", "image", form, (Label("disc"),), "labels"),)


def test_labels_that_nothing_draws_for_and_labels_below_labels_are_noticed() -> None:
    parsed = parse_label_config(
        """<View><Image name="image" value="$image"/><Rectangle name="r" toName="image"/>
        <Labels name="boxes" toName="image"><Label value="box"/></Labels>
        <BrushLabels name="tag" toName="image" value="$names"><Label value="animal"><Label value="cat"/></Label>
        <View><Label value="boat"/></View></BrushLabels></View>"""
    )
    assert [x.name for x in parsed.labels] == ["animal", "boat"]
    for word in ("'boxes'", "'cat' below", "$names"):
        assert any(word in note for note in parsed.notices), word


def test_a_list_of_pictures() -> None:
    parsed = parse_label_config(config('<Label value="x"/>', image='<Image name="image" valueList="$pages"/>'))
    assert parsed.images == (ImageField("image", "pages", many=True),)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty"),
        ("<View></View>", "no image tag"),
        (config("<Label value='x'/>", image=""), "no image tag"),
        (config("<Label value='x'/>", image="<Image name='image' value='fixed.png'/>"), 'value="\\$image"'),
        (config(""), "no usable control"),
        ('<View><Image name="image" value="$image"/></View>', "no control that draws"),
        (
            '<View><Image name="i" value="$i"/><RectangleLabels name="p" toName="i"><Label value="x"/></RectangleLabels></View>',
            "no control that draws",
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
