"""Label Studio's services joined, without a web framework: our Flask application and ``label-studio-ml`` host the same."""

from __future__ import annotations

from dataclasses import dataclass

from ovam_labeler.jobs.kinds import GENERATE
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.corrections import TOOL
from ovam_labeler.tools.label_studio.event_service import EventService
from ovam_labeler.tools.label_studio.generating import Generator
from ovam_labeler.tools.label_studio.measuring import Measurer
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.push import Pusher
from ovam_labeler.tools.label_studio.push_queue import PUSH, PushQueue
from ovam_labeler.tools.label_studio.reconcile import Reconciler
from ovam_labeler.tools.label_studio.setup_service import SetupService
from ovam_labeler.tools.label_studio.tool import LabelStudioTool

#: Largest request body in bytes: a batch carries the old predictions of every task with their full RLE.
MAX_REQUEST_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LabelStudioServices:
    """What answers Label Studio's requests; each is thread-safe."""

    tool: LabelStudioTool
    setup: SetupService
    predict: PredictService
    events: EventService
    pushes: PushQueue
    generator: Generator
    reconciler: Reconciler


def join(application: Application) -> LabelStudioServices:
    """The services over a joined application; before its worker is started, since they bring kinds of jobs.

    Args:
        application: with this tool among its decoders, else a tool of its own is made from its settings.
    """
    tool = application.decoders.get(TOOL)
    if not isinstance(tool, LabelStudioTool):
        tool = LabelStudioTool(application.settings)
    predict = PredictService(application, tool)
    events = EventService(application, application.jobs.notify, tool.known_image)
    pushes = PushQueue(application.settings, application.store, tool.connections, application.jobs.notify)
    pusher = Pusher(application, tool, predict, pushes)
    predict.hand_over = pushes.hand_over
    generator = Generator(application, tool)
    application.add_handler(PUSH, pusher)
    application.add_handler(GENERATE, generator)
    application.on_learned(Measurer(application, tool).learned)
    application.on_learned(pusher.learned)
    reconciler = Reconciler(tool.connections, events, application)
    events.on_training = reconciler.start
    setup = SetupService(application, tool, predict, events.names)
    return LabelStudioServices(tool, setup, predict, events, pushes, generator, reconciler)
