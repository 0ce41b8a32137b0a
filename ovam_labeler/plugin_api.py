"""All that plugin authors import.  What is named here keeps its form within one :data:`API_VERSION`.

A plugin is an entry point; a broken one is listed by ``ovam-labeler doctor`` with its error and stops nothing.

========================== ============================================================
entry point group          resolves to
========================== ============================================================
``ovam_labeler.backends``  a :class:`BackendSpec`
``ovam_labeler.methods``   a :class:`MaskMethod`, or a class made without arguments
``ovam_labeler.refiners``  a :class:`Refiner`, or a class made without arguments
``ovam_labeler.tools``     a :class:`LabelingTool`, or a class made without arguments
========================== ============================================================

A plugin may carry ``api_version = API_VERSION``; one built for another version is listed as broken.
"""

from __future__ import annotations

from backends.contract import (
    API_VERSION,
    Attributor,
    Backend,
    BackendError,
    BackendSpec,
    BatchReader,
    Calibration,
    Capture,
    CaptureInfo,
    ClassQuery,
    Fingerprint,
    FingerprintMismatchError,
    Generated,
    LogitSource,
    MaskMethod,
    Needs,
    Progress,
    PromptTooLongError,
    Reader,
    ReadRequest,
    Refiner,
    RegionSource,
    TokenExample,
    TokenFit,
    TokenRecipe,
    TokenSet,
)
from ovam_labeler.domain import Label, LoadedImage, ProjectOptions, Proposal, Truth
from ovam_labeler.errors import BadConfigError, BadImageError, BadMaskError, BadRequestError, FetchError, OvamError
from ovam_labeler.image_source import encode_png, load_image, read_limited
from ovam_labeler.services import CorrectionDecoder
from ovam_labeler.tools.contract import LabelingTool, ParsedConfig
from ovam_labeler.truth import build_truths
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

__all__ = [
    "API_VERSION",
    "Attributor",
    "Backend",
    "BackendError",
    "BackendSpec",
    "BadConfigError",
    "BadImageError",
    "BadMaskError",
    "BadRequestError",
    "BatchReader",
    "Calibration",
    "Capture",
    "CaptureInfo",
    "ClassQuery",
    "Correction",
    "CorrectionDecoder",
    "FetchError",
    "Fingerprint",
    "FingerprintMismatchError",
    "Generated",
    "Label",
    "LabelingTool",
    "LoadedImage",
    "LogitSource",
    "MaskMethod",
    "Needs",
    "NewCorrection",
    "OvamError",
    "ParsedConfig",
    "Progress",
    "ProjectOptions",
    "PromptTooLongError",
    "Proposal",
    "ReadRequest",
    "Reader",
    "Refiner",
    "RegionSource",
    "Scope",
    "ServedPrediction",
    "TokenExample",
    "TokenFit",
    "TokenRecipe",
    "TokenSet",
    "Truth",
    "build_truths",
    "encode_png",
    "load_image",
    "read_limited",
]
