"""Which emoji are concrete objects, what they are called, and where each set keeps its drawing of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .sources import NAMES_PACKAGE, STYLES, Style, package_folder

# Emoji of these groups / subgroups that show scenes, symbols, clocks or signs rather than one object.
_EXCLUDED_SUBGROUPS = {"person-symbol", "place-map", "transport-sign"}
_EXCLUDED_WORDS = set(
    """red question mark|exclamation|clock|moon|o’clock|thirty|sun with face|button|symbol|medal|card
level slider|muted speaker|speaker|white cane|fog|night with stars|sunrise|sunset|cityscape|milky way|foggy
bridge at night|hot springs|barber pole|no |litter|potable|heavy|check box|bookmark tabs|page facing|page with
input|closed book|receipt|dotted|tear-off|spiral calendar|chart|bar chart|card index|triangular flag|flag
suit|joker|mahjong|flower playing|performing arts|framed picture|wind face|snowflake|dashing|high voltage
star|comet|cyclone|rainbow|sweat|tornado|cloud with|sun behind|japanese|post office|european post|department store
window|mirror|placard|identification|headstone|elevator|fountain|stop|construction|police car light|horizontal
low battery|printer|trackball|optical disk|computer disk|floppy|dvd|film frames|cinema|antenna|vibration
mobile phone off|dollar|euro|pound|yen|outbox|inbox|incoming|e-mail|love letter|musical note|musical score
closed mailbox with lowered|open mailbox|mailbox|locked|unlocked|linked|broken chain|old key|nesting|person
national park|camping|desert island|beach with|oncoming|delivery|national|hole|splatter|fight cloud|bouquet
letter""".replace("\n", "|").split("|")
)
_KEPT = set(
    """star|umbrella|umbrella with rain drops|crescent moon|full moon|sun|cloud|fire|droplet|snowman
fountain pen|printer|mailbox|envelope|starfish|fish|closed mailbox with raised flag|mirror|window|optical disk
floppy disk|card index|dollar banknote|card file box|oncoming bus|oncoming taxi|oncoming automobile|delivery truck
mouse trap|ringed planet|barber pole|locked|old key|headstone|nesting dolls|rainbow|snowflake|bouquet
mahjong red dragon|stop sign|fountain|closed book|world map|camping|tent|mirror ball|magic wand|bathtub|dvd|watch
alarm clock|hourglass done|mantelpiece clock|timer clock|stopwatch|speaker high volume|bar chart|crayon
person in bed""".replace("\n", "|").split("|")
)


@dataclass
class Concept:
    """One thing, e.g. ``cat face``: its code points, all its names, and its drawing's source per style."""

    code: str
    label: str
    names: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    sources: dict[str, str | Path] = field(default_factory=dict)


def squash(name: str) -> str:
    """Letters and digits of a name only, for matching over sets."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def code_of(hexcode: str) -> str:
    """Code points without the presentation selector."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def load_people() -> list[Concept]:
    """People by role and activity (no skin tones, no gendered twins), in the same form as :func:`load_concepts`."""
    people = {"person", "person-role", "person-fantasy", "person-activity", "person-sport", "person-resting"}
    chosen = []
    for row, subgroup in _rows():
        words = row["label"].lower().replace(":", " ").split()
        if subgroup in people and not {"man", "men", "woman", "women", "person"} & set(
            words[:1] if len(words) > 1 else ()
        ):
            chosen.append(Concept(code_of(row["hexcode"]), row["label"].lower(), tags=list(row.get("tags", []))))
    return _drawn(chosen)


def load_concepts(styles: Sequence[Style] = STYLES) -> list[Concept]:
    """Concepts with names and, per style that draws them, an SVG text or an image path."""
    return _drawn(_select(), styles)


def _drawn(concepts: list[Concept], styles: Sequence[Style] = STYLES) -> list[Concept]:
    sets = {style.name: _IconSet(style.package) for style in styles if style.name != "fluent3d"}
    shortcodes = _shortcodes()
    for concept in concepts:
        found = [concept.label]
        found += [
            icons.by_code[concept.code].replace("-", " ") for icons in sets.values() if concept.code in icons.by_code
        ]
        found += [code.replace("_", " ") for code in shortcodes.get(concept.code, [])]
        unique: dict[str, str] = {}
        for name in found:
            if re.search("[a-z]{3}", name):
                unique.setdefault(squash(name), name)
        concept.names = list(unique.values())
    images = {
        code_of(path.stem): path
        for path in (package_folder("@lobehub/fluent-emoji-3d@1.1.0") / "assets").glob("*.webp")
    }
    for style in styles:
        for concept in concepts:
            source = images.get(concept.code) if style.name == "fluent3d" else sets[style.name].find(concept)
            if source is not None:
                concept.sources[style.name] = source
    return concepts


def _rows() -> list[tuple[dict, str]]:
    """Every emoji's entry and its subgroup."""
    folder = package_folder(NAMES_PACKAGE)
    groups = json.loads((folder / "meta/groups.json").read_text())
    subgroups = {int(key): value for key, value in groups["subgroups"].items()}
    rows = json.loads((folder / "en/data.json").read_text())
    return [(row, subgroups.get(row.get("subgroup"), "")) for row in rows]


def _select() -> list[Concept]:
    chosen = []
    for row, subgroup in _rows():
        group = row.get("group")
        wanted = (
            group in (3, 4, 5, 6, 7)
            or subgroup in ("body-parts", "face-costume")
            or row["label"] in ("skull", "skull and crossbones")
        )
        label = row["label"].lower()
        if subgroup in _EXCLUDED_SUBGROUPS or not wanted or (label not in _KEPT and _is_excluded(label)):
            continue
        chosen.append(Concept(code_of(row["hexcode"]), label, tags=list(row.get("tags", []))))
    return chosen


def _is_excluded(label: str) -> bool:
    return any(word and (word in label.split() or (len(word) > 4 and word in label)) for word in _EXCLUDED_WORDS)


def _shortcodes() -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for name in ("emojibase", "cldr", "github"):
        path = package_folder(NAMES_PACKAGE) / f"en/shortcodes/{name}.json"
        if path.exists():
            for key, value in json.loads(path.read_text()).items():
                result.setdefault(code_of(key), []).extend(value if isinstance(value, list) else [value])
    return result


def svg_of(icon: dict[str, Any], data: dict[str, Any]) -> str:
    """SVG text of an icon of an Iconify JSON set ``data``, which has the default sizes."""
    width, height = (icon.get(key, data.get(key, 16)) for key in ("width", "height"))
    left, top = (icon.get(key, data.get(key, 0)) for key in ("left", "top"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


class _IconSet:
    """An Iconify JSON set: icons by name, and by code point where the set says so."""

    def __init__(self, package: str) -> None:
        folder = package_folder(package)
        self.data = json.loads((folder / "icons.json").read_text())
        chars = folder / "chars.json"
        self.by_code = {code_of(k): v for k, v in json.loads(chars.read_text()).items()} if chars.exists() else {}
        self.by_name: dict[str, str] = {}
        for name in [*self.data["icons"], *self.data.get("aliases", {})]:
            self.by_name.setdefault(squash(name), name)
            self.by_name.setdefault(squash(re.sub(r"-\d$", "", name)), name)
        self.match_names = self.data["prefix"] in {
            "fluent-emoji",
            "emojione",
            "noto-v1",
            "fxemoji",
            "streamline-emojis",
            "emojione-v1",
        }

    def find(self, concept: Concept) -> str | None:
        """SVG text of the concept's icon."""
        name = self.by_code.get(concept.code)
        if name is None and self.match_names:
            name = next((self.by_name[squash(n)] for n in concept.names if squash(n) in self.by_name), None)
        return None if name is None else self._svg(name)

    def _svg(self, name: str) -> str | None:
        icon = self.data["icons"].get(name)
        if icon is None:
            alias = self.data.get("aliases", {}).get(name)
            return None if alias is None or set(alias) - {"parent"} else self._svg(alias["parent"])
        return svg_of(icon, self.data)
