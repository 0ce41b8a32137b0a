"""The auto-annotation function that CVAT's own programs run, over the same services as every other tool::

    cvat-cli task auto-annotate 5 --function-module ovam_labeler.tools.cvat.function \\
        -p labels=str:"snail,tea pot" -p project=str:12

or as the function of an agent (``cvat-cli function create-native`` and ``run-agent``, with the same parameters).
Settings are those of ``ovam-labeler`` (``OVAM_...``).  Tokens are looked up anew for every picture, so an agent uses
what is learned while it runs.
"""

from __future__ import annotations

import atexit
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cvat_sdk import auto_annotation as aa

from ovam_labeler.errors import BadConfigError, BadRequestError
from ovam_labeler.image_source import from_pillow
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.cvat.labels import form_of, parse_labels
from ovam_labeler.tools.cvat.writing import write_shapes
from ovam_labeler.translate import translate_errors
from token_store.contract import StoreError
from token_store.entities import Scope, ServedPrediction

if TYPE_CHECKING:
    import PIL.Image
    from cvat_sdk import models

log = logging.getLogger(__name__)

#: Connection of the scope unless another is named, for several CVATs.
CONNECTION = "cvat"

SHAPES = ("mask", "polygon", "label")


def create(
    labels: str = "", labels_file: str = "", project: str = "", connection: str = CONNECTION, shapes: str = "mask"
) -> OvamFunction:
    """What ``cvat-cli`` calls with its ``-p`` parameters.

    Args:
        labels: names, separated by commas; ``name=words`` gives the words that stand for a label until it is learned.
        labels_file: instead of ``labels``: a file with the JSON of the label constructor's Raw tab.
        project: of the tokens' scope: those learned from this project's tasks are used.  Empty: global tokens.
        connection: the other part of the scope.
        shapes: ``mask``, ``polygon``, or ``label``: as each label's type in ``labels_file`` says.

    Raises:
        BadRequestError: an unknown ``shapes``, or labels given twice or not at all.
        BadConfigError: no label that masks can have.
    """
    from ovam_labeler.application import build_application
    from ovam_labeler.settings import Settings

    config = parameters_config(labels, labels_file)
    application = build_application(Settings())
    atexit.register(application.close)
    scope = Scope(connection, project) if project else Scope.everywhere()
    return OvamFunction(application, config, scope, shapes)


class OvamFunction:
    """Implements ``cvat_sdk.auto_annotation.DetectionFunction``.

    Args:
        application: the joined services, the caller's.
        shapes: see :func:`create`.
    """

    def __init__(self, application: Application, config: ParsedConfig, scope: Scope, shapes: str = "mask") -> None:
        if shapes not in SHAPES:
            raise BadRequestError(f"The parameter 'shapes' is {shapes!r}; allowed are {', '.join(SHAPES)}.")
        self._application = application
        self._config = config
        self._scope = scope
        self._forms = {
            label.name: form_of(config, label.name) if shapes == "label" else shapes for label in config.labels
        }
        self._spec = aa.DetectionFunctionSpec(
            labels=[
                aa.label_spec(label.name, number, type=self._forms[label.name])
                for number, label in enumerate(config.labels)
            ]
        )

    @property
    def spec(self) -> aa.DetectionFunctionSpec:
        """Labels by their place in the config, each with the type of its shapes."""
        return self._spec

    def detect(
        self, context: aa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> Sequence[models.LabeledShapeRequest]:
        """Shapes of the labels judged present whose score reaches ``conf_threshold``.

        What is proposed is remembered by the frame's name, so that :mod:`ovam_labeler.tools.cvat.pull` sees what was
        deleted of it.

        Raises:
            BadImageError: out of bounds.  ModelError: the base model cannot be loaded.
        """
        application, labels = self._application, self._config.labels
        loaded = from_pillow(image, max_pixels=application.settings.max_image_pixels)
        with translate_errors():
            options = project_options(application.settings, application.store.get_project_options(self._scope))
            proposals = application.proposer.propose(loaded, labels, self._scope, options)
            version = application.proposer.model_version(labels, self._scope, options)
        shapes = []
        for polygons in (False, True):
            mine = [
                p for p in proposals if (self._forms[p.label] == "polygon" or context.conv_mask_to_poly) is polygons
            ]
            written = write_shapes(
                mine,
                self._config,
                (loaded.height, loaded.width),
                version,
                options=options,
                form="polygon" if polygons else "mask",
                least=context.conf_threshold or 0.0,
                frame_name=context.frame_name,
            )
            shapes += written["shapes"]
        self._remember(
            ServedPrediction(
                scope=self._scope,
                task_id=context.frame_name,
                model_version=version,
                regions={shape["region"]: shape["label"] for shape in shapes},
                token_versions={p.label: p.token_version for p in proposals if p.token_version is not None},
                created_at=datetime.now(UTC),
                version_ids={p.label: p.version_id for p in proposals},
            )
        )
        return [
            aa.shape(shape["label_id"], type=shape["type"], points=shape["points"], score=shape["score"])
            for shape in shapes
        ]

    def _remember(self, served: ServedPrediction) -> None:
        """Store what was served.  Without it deletions go unseen, but the annotator still gets the masks."""
        try:
            self._application.store.put_served([served])
        except StoreError as error:
            log.warning("What was served could not be stored, so deleted shapes will not be understood: %s", error)


def parameters_config(labels: str, labels_file: str = "") -> ParsedConfig:
    """The labels that :func:`create` is given.  Raises as it does."""
    if bool(labels.strip()) == bool(labels_file):
        raise BadRequestError("Give either the parameter 'labels' or 'labels_file'.")
    if labels_file:
        try:
            return parse_labels(Path(labels_file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfigError(f"The file '{labels_file}' cannot be read: {error}.") from error
    rows = []
    for part in labels.split(","):
        name, _, words = (piece.strip() for piece in part.partition("="))
        attributes = [{"name": "prompt", "default_value": words}] if words else []
        rows.append({"name": name, "type": "any", "attributes": attributes})
    return parse_labels(json.dumps([row for row in rows if row["name"]]))
