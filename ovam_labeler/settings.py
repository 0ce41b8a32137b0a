"""Settings from the environment (prefix ``OVAM_``) or a ``.env`` file.  Every field is documented in docs/settings.md."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(env_prefix="OVAM_", env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Field(
        default_factory=lambda: Path.home() / ".local" / "share" / "ovam-labeler",
        description="Folder of all state: database, capture cache, images.  Made when missing.",
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL of the token store; default: SQLite in the data folder."
    )
    model: str = Field(
        default="embedded",
        description="Base model: `embedded`, a folder of a diffusers pipeline, or a hub name such as "
        "`stable-diffusion-v1-5/stable-diffusion-v1-5`.",
    )
    backend: str | None = Field(
        default=None, description="Backend plugin by name; default: the first that accepts the model."
    )
    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="CPU threads of the base model; 0 = the number of cores available to this process.",
    )
    method: str = Field(default="ovam", description="Mask method by name.")
    refiner: str = Field(
        default="guided-filter",
        description="Mask refiner by name: `none`, `guided-filter`, `dense-crf`, or a plugin's.",
    )
    overlap: Literal["exclusive", "independent"] = Field(
        default="exclusive", description="`exclusive`: each pixel to its best class; `independent`: masks may overlap."
    )
    cache_max_bytes: int = Field(
        default=4_000_000_000,
        ge=0,
        description="Size bound of the capture cache in bytes; least recently used goes first.",
    )
    cache_preset: Literal["lossless", "exact", "balanced", "small"] = Field(
        default="exact",
        description="How queries are kept, in memory and in the cache: `lossless` (float32), `exact` (8 bits, 16 "
        "where few steps are recorded; every step), `balanced` (the same, steps averaged to five), `small` (six averaged "
        "steps, transform-coded).  docs/performance.md has their sizes and errors.",
    )
    max_image_pixels: int = Field(default=80_000_000, ge=1, description="Images with more pixels are refused.")
    max_image_bytes: int = Field(default=60_000_000, ge=1, description="Image files larger than this are refused.")
    fetch_timeout: float = Field(default=20.0, gt=0, description="Seconds to fetch one image.")
    label_studio_url: str | None = Field(
        default=None,
        description="Label Studio's address: the one host that may be sent credentials and fetched from, private or not.",
    )
    label_studio_token: SecretStr | None = Field(
        default=None, description="Label Studio's legacy token or personal access token; never logged."
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="Secret the webhook must carry; unset = the webhook is open on loopback only."
    )
    pages_password: SecretStr | None = Field(
        default=None,
        description="Password of the web pages under `/pages/` (basic authentication, any name, which the log keeps); "
        "unset = the pages are open to this machine only.",
    )
    image_stores: str = Field(
        default="",
        description="Buckets that tasks may name images in, separated by commas: `s3://bucket`, `s3://bucket/folder`, "
        "`gs://bucket`.  Read with this process's own cloud credentials, so no others are.",
    )
    allow_private_fetch: bool = Field(
        default=False, description="Allow images from private addresses other than the Label Studio host's."
    )
    predict_budget: float = Field(
        default=60.0,
        gt=0,
        description="Seconds a batch predict may take before Label Studio is made to ask task by task.",
    )
    batches: Literal["one-by-one", "push"] = Field(
        default="one-by-one",
        description="A batch that would take longer than `OVAM_PREDICT_BUDGET`: `one-by-one` makes Label Studio ask task by "
        "task; `push` predicts the rest in the background and hands it over through Label Studio's API.",
    )
    push_delay: float = Field(
        default=3.0,
        ge=0,
        description="Seconds after a token has landed until the next open tasks are predicted again and pushed; several "
        "tokens in a row give one push.",
    )
    reconcile_seconds: float = Field(
        default=300.0,
        ge=0,
        description="Seconds between looks through Label Studio's API for annotations whose event was lost; 0 = only at "
        "start and at START_TRAINING.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Log level.")

    def resolved_database_url(self) -> str:
        """The store's URL; SQLite at ``<data_dir>/ovam.sqlite3`` unless set."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'ovam.sqlite3').absolute()}"
