"""Common nouns, for models that do not say which words they know: what the embeddings of class words look like."""

from __future__ import annotations

_NOUNS = """
air airplane ant apple apron arm arrow axe baby bag ball banana barn barrel basin basket bat bath beach bean bear bed bee
beetle bell belt bench berry bicycle bird blade blanket boat bone book boot bottle bow bowl box boy brain branch bread brick
bridge broom brush bucket building bulb bus bush butter button cake camel camera candle canoe cap car card carpet carrot cart
castle cat cave chain chair cheese cherry chess chest chicken chin church circle city clock cloth cloud coat coin comb cookie
copper corn couch cow crab crane crown cup curtain deer desk dish dog doll dolphin donkey door dragon dress drill drum duck
ear earth egg elephant engine eye face farm feather fence field finger fire fish flag floor flower fly foot forest fork fox
frog fruit garden gate girl glass glove goat gold goose grape grass guitar gun hair hammer hand hat head heart helicopter
hill hole hook horn horse hospital house insect iron island jacket jar jewel key king kitchen kite knee knife knot ladder
lake lamp leaf leg lemon letter library line lion lip lizard lock log machine man map mask meat medal milk mirror monkey
moon motorcycle mountain mouse mouth mushroom nail neck needle nest net nose nut oil onion orange oven owl paint pan paper
""".split()  # noqa: SIM905


def nouns() -> list[str]:
    """About 250 of them, in a fixed order."""
    return list(_NOUNS)
