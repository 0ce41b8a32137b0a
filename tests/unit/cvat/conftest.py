"""An application with the colour model, and a task of two pictures on a server that CVAT's SDK talks to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "application"))

from colour_model import COLOURS, ColourModel, scene
from cvat_sdk import auto_annotation as aa
from cvat_sdk import make_client
from cvat_sdk.core.client import Client
from cvat_server import SCOPE, TOKEN, CvatTask, serving

from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.settings import Settings
from ovam_labeler.tools.cvat.function import OvamFunction, parameters_config
from ovam_labeler.tools.cvat.tool import CvatTool


@pytest.fixture
def task() -> CvatTask:
    """``a.png`` shows a red box, ``b.png`` and ``c.png`` a green one."""
    return CvatTask(
        {
            "a.png": scene((COLOURS["red"], (16, 16, 24, 32))),
            "b.png": scene((COLOURS["green"], (16, 16, 24, 32))),
            "c.png": scene((COLOURS["green"], (32, 48, 24, 32))),
        },
        [{"name": "red", "type": "any"}, {"name": "thing", "type": "any"}],
    )


@pytest.fixture
def url(task: CvatTask) -> Iterator[str]:
    with serving(task) as address:
        yield address


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[Client]:
    with make_client(url, access_token=TOKEN) as made:
        made.config.cache_dir = tmp_path / "cvat-cache"
        yield made


@pytest.fixture
def application(tmp_path: Path, sqlite_template: Path) -> Iterator[OvamApplication]:
    (tmp_path / "state").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "state" / "ovam.sqlite3")
    settings = Settings(data_dir=tmp_path / "state", _env_file=None)  # type: ignore[call-arg]
    app = build_application(settings, {"cvat": CvatTool(settings)}, loader=ColourModel().load)
    yield app
    app.close()


@pytest.fixture
def annotate(client: Client, application: OvamApplication) -> Callable[..., None]:
    """Run the function by the SDK's own driver, which checks whatever it returns."""

    def run(labels: str = "red,thing", shapes: str = "mask", **how: Any) -> None:
        function = OvamFunction(application, parameters_config(labels), SCOPE, shapes)
        aa.annotate_task(client, 1, function, **how)

    return run
