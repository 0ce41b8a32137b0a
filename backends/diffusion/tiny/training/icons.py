"""Drawings from icon sets: the hands of some sixty further designers, by the icons' names; from npm's ``@iconify/json``.

An icon that is called like a known concept becomes one more drawing of it; a thing of :data:`FURTHER` that three sets draw
becomes a concept of its own.  Most icons have one colour: see ``tint.py``.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from .clipart import Extra, is_held_out, singular, words_of
from .concepts import squash, svg_of
from .sources import ICON_STYLES, ICONS_PACKAGE, package_folder
from .synonyms import asked

MOST_OF_A_SET, MOST_OF_ONE, FEWEST_SETS = 2, 16, 3
# What sets add to a name to tell variants apart.
_VARIANTS = frozenset(
    re.findall(
        "[a-z]+",
        """fill filled outline outlined bold duotone light thin solid linear broken line lined rounded round sharp regular
twotone alt color flat remix free stroke standard px variant o icon""",
    )
)
# Names that mean another thing on a screen or a map than in a caption.
_OTHER_MEANING = frozenset(
    re.findall(
        "[a-z]+",
        """mouse apple bug window windows cell table tab menu button file folder link branch fork node tree key board
keyboard pen chip cloud drop star heart sun moon fire flag pin hook crane nut seal bat jack organ palm post record stamp
tag label desktop screen home house cursor hand pointer disc disk bar bars chart column row grid frame shape square
circle triangle diamond cube ball point spot stop play pause forward track trace web net case bank safe bill check coin
token note sheet page leaf plant sprout shield lock unlock gear cog wheel filter brush eraser ruler compass map location
place stadium lab tool tools plug socket switch toggle slider controller server hub stack layers layer block brick box
package bundle archive basket cart bag store shop market mall script pillow body skin bone face smile head eye ear
mouth nose foot leg arm finger fingers man woman people person user users group team male female child baby boy girl
adult customer client worker avatar art image picture photo video film movie music sound speaker volume signal tower
radar antenna wave waves water air wind snow rain storm fog road street path route bridge tunnel gate door exit stairs
ladder floor roof wall room bed stage scene light bulb lamp flash spark bolt lightning battery power energy display""",
    )
)

#: Things that icons show and emoji do not (chosen from what three sets name alike; nothing that looks like a held-out concept).
FURTHER = frozenset(
    re.findall(
        "[a-z]+",
        """cpu fan drone globe flask piano garage hanger planet shovel wallet headset monitor windmill projector calculator dice
plane spade virus tablet bandage building binoculars flower podium scanner warehouse bacteria meteor desk paw vault
siren clover fridge suitcase beaker sword lighthouse cone oven moustache lasso capsule refrigerator speedometer toast
blender fence barbell mask kettle wheat acorn pinwheel treadmill closet toaster grass bow pot bowl cassette fireplace
skirt whisk microchip baggage balcony comet cap barrel drawer anvil barn surfboard turntable wardrobe faucet floppy
belt fist vest cabinet trowel tank ladle asteroid tire waterfall dropper remote monument towel helmet cane necklace
dam meat drill blanket snowboard plate chocolate sock washer cabin hat crib needle shelf heater pipe jeep rake liver
sausage scalpel stomach barricade pocket rug marker dresser baguette cutlery magnifier defibrillator honey chimney
resistor checkerboard handle milkshake typewriter cradle sink screw steak saddle cleaver horseshoe submarine
greenhouse silo diaper locker lectern spatula thermostat sleigh mop comb tray chest glove trunk strongbox grill igloo
lever valve cannon fedora iceberg obelisk zeppelin potion vine shrub bullet domino pan pepper nail loupe pasta stove
plaque can tube cave hedge sculpture staircase pagoda drumstick underwear vase barrier cigar squirrel honeycomb knob
observatory bean birdhouse archway hydrant statue swan hammock catapult trident crossbow wheelbarrow scarecrow crystal
harp bagpipes totem quiver gauntlet breastplate pitchfork sickle scythe tombstone skeleton mummy vampire scarab raven
vulture walrus moose hyena chameleon gecko seahorse stingray mantis dragonfly grasshopper centipede caterpillar
cockroach beetle wasp ladder""",
    )
)


def drawings(names: dict[str, str], vocabulary: set[str]) -> list[tuple[str, Extra]]:
    """(set, drawing) of every usable icon, at most :data:`MOST_OF_ONE` of a concept; the same arguments as ``clipart.drawings``."""
    hidden = {squash(name) for name in asked()}
    known: dict[str, list[tuple[str, Extra]]] = defaultdict(list)
    further: dict[str, list[tuple[str, Extra]]] = defaultdict(list)
    authors = json.loads((package_folder(ICONS_PACKAGE) / "collections.json").read_text("utf-8"))
    for style in ICON_STYLES:
        taken: dict[str, int] = defaultdict(int)
        author = authors[style.name]["author"]["name"]
        for icon, words, svg in _icons(style.name):
            if is_held_out(words) or not words or set(words) <= _OTHER_MEANING:
                continue
            name = " ".join(words)
            label = names.get(squash(name)) or names.get(squash(" ".join([*words[:-1], singular(words[-1])])))
            if taken[label or name] >= MOST_OF_A_SET:
                continue
            extra = Extra(svg, name, label, icon, author)
            if label is not None:
                known[label].append((style.name, extra))
            elif name in FURTHER and name in vocabulary and squash(name) not in hidden:
                further[name].append((style.name, extra))
            else:
                continue
            taken[label or name] += 1
    chosen = [_spread(some) for some in known.values()]
    chosen += [_spread(some) for some in further.values() if len({style for style, _ in some}) >= FEWEST_SETS]
    return [entry for some in chosen for entry in some]


def _spread(some: list[tuple[str, Extra]]) -> list[tuple[str, Extra]]:
    """Up to :data:`MOST_OF_ONE`, one of every set before a second of any."""
    seen: dict[str, int] = defaultdict(int)
    ranked = []
    for position, (style, extra) in enumerate(some):
        ranked.append((seen[style], position, style, extra))
        seen[style] += 1
    ranked.sort(key=lambda r: r[:2])
    return [(style, extra) for _, _, style, extra in ranked[:MOST_OF_ONE]]


def _icons(prefix: str) -> Iterator[tuple[str, list[str], str]]:
    """Name, words of the name and SVG text of a set's own icons (aliases draw nothing new)."""
    data: dict[str, Any] = json.loads((package_folder(ICONS_PACKAGE) / f"json/{prefix}.json").read_text("utf-8"))
    for name, icon in sorted(data["icons"].items(), key=lambda item: (len(item[0]), item[0])):
        if icon.get("hidden") or "animate" in icon["body"]:
            continue
        words = [w for w in words_of(name) if w not in _VARIANTS]
        if len(words) == 2 and words[1] in ("head", "face"):  # of animals
            words = words[:1]
        yield name, words, svg_of(icon, data)
