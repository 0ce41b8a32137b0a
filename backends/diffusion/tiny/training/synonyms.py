"""Names of known concepts that no caption used, for the evaluation; the drawings' keywords may not bring them into lessons either.

Checked against the model's own list before use.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

#: Of validation concepts: settings are chosen with these.
VALIDATION_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "airplane arrival": ("landing plane", "airliner", "jet"),
    "alembic": ("distillation flask", "still", "retort"),
    "canoe": ("kayak", "dugout", "rowboat"),
    "convenience store": ("corner shop", "minimart", "grocery"),
    "crab": ("crustacean", "shellfish"),
    "crayon": ("wax crayon", "pastel"),
    "dragon": ("wyvern", "drake"),
    "evergreen tree": ("pine tree", "conifer", "fir", "spruce"),
    "ferry": ("ferryboat", "passenger boat"),
    "fire engine": ("fire truck", "firetruck"),
    "label": ("tag", "price tag"),
    "leopard": ("panther", "jaguar"),
    "oncoming automobile": ("sedan", "motorcar"),
    "paperclip": ("paper clip", "clip"),
    "penguin": ("emperor penguin",),
    "running shirt": ("singlet", "tank top", "undershirt"),
    "spouting whale": ("humpback", "cetacean", "sperm whale"),
    "taco": ("burrito wrap", "tortilla"),
    "taxi": ("cab", "taxicab"),
    "tongue": ("glossa", "tongue sticking out"),
}
#: Of test concepts.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "alien monster": ("extraterrestrial",),
    "boar": ("hog", "wild pig"),
    "cat face": ("kitty", "feline"),
    "cherry blossom": ("sakura",),
    "clapper board": ("film slate",),
    "clown face": ("jester",),
    "deciduous tree": ("oak", "tree"),
    "derelict house": ("ruin", "abandoned building"),
    "fire": ("flame", "blaze"),
    "fireworks": ("firework",),
    "flashlight": ("torch",),
    "high-heeled shoe": ("stiletto",),
    "horse": ("pony", "stallion"),
    "horse face": ("pony", "stallion"),
    "jack-o-lantern": ("pumpkin", "halloween pumpkin"),
    "koala": ("koala bear",),
    "lady beetle": ("ladybug", "ladybird"),
    "light rail": ("tramway", "trolley"),
    "locked": ("padlock",),
    "metro": ("subway",),
    "mountain": ("peak", "hill"),
    "pig face": ("swine", "piglet"),
    "ping pong": ("table tennis",),
    "police car": ("patrol car", "cop car"),
    "radio": ("wireless set",),
    "ring": ("wedding ring", "engagement ring"),
    "rooster": ("cockerel",),
    "round pushpin": ("thumbtack", "drawing pin"),
    "running shoe": ("trainer", "sports shoe"),
    "shrimp": ("prawn",),
    "slot machine": ("fruit machine",),
    "stuffed flatbread": ("kebab", "gyro"),
    "tangerine": ("clementine", "satsuma"),
    "triangular ruler": ("set square",),
    "turtle": ("tortoise",),
    "watch": ("wristwatch",),
    "woman’s clothes": ("blouse",),
    "wrench": ("spanner",),
}


def unseen_synonyms(concept: str, known_words: Collection[str]) -> list[str]:
    """The concept's synonyms that are no word of the model's training."""
    return [name for name in {**VALIDATION_SYNONYMS, **SYNONYMS}.get(concept, ()) if name not in known_words]


def asked() -> set[str]:
    """Every word or phrase here."""
    return {name for mapping in (VALIDATION_SYNONYMS, SYNONYMS) for names in mapping.values() for name in names}
