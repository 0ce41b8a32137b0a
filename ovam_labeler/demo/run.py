"""``ovam-labeler demo``: Label Studio and the backend on this machine with a small project, until Ctrl-C."""

from __future__ import annotations

import time
from typing import NoReturn

from rich.console import Console
from rich.panel import Panel

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.headless import Running, started
from ovam_labeler.demo.project import BATCH
from ovam_labeler.demo.scenes import Plan, make_scenes
from ovam_labeler.demo.signals import ended_by_signals
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.demo.steps import Steps
from ovam_labeler.settings import Settings

#: Small enough to be ready in a minute: eight labels, six pictures each.
PLAN = Plan(novel=5, known=3, corrections=1, tests=5)
#: Seconds between looks at what was learned.
LOOK = 0.5


def run_demo(settings: Settings, seed: int) -> int:
    """Start everything, say what to click, tell of every token learned, stop cleanly on Ctrl-C or SIGTERM.

    The demo's state stays in ``<data folder>/demo/seed-<seed>``: started again, its project and tokens are still there.
    """
    console = Console()
    work = (settings.data_dir / "demo" / f"seed-{seed}").resolve()
    try:
        with ended_by_signals(), Steps(console) as steps:
            tick = steps("Composing pictures with exact truth")
            scenes = make_scenes(load_pack("test"), seed, compose, PLAN)
            tick(0.5)
            scenes.save(work / "files" / "scenes")
            tick(1.0)
            with started(settings, work, scenes, seed, steps) as running:
                tick = steps("Predicting all pictures")
                names = list(running.project.tasks)
                for at in range(0, len(names), BATCH):
                    running.project.retrieve(names[at : at + BATCH])
                    tick((at + BATCH) / len(names))
                steps.stop()
                console.print(_panel(running, [c.name for c in scenes.concepts if not c.has_word]))
                _watch(running, console)
    except KeyboardInterrupt:
        console.print("Label Studio and the backend have stopped; run the same command to go on where you left off.")
    return 0


def _panel(running: Running, unknown: list[str]) -> Panel:
    studio, project = running.studio, running.project
    text = "\n".join(
        [
            f"Open      [bold]{studio.url}/projects/{project.id}/data[/]",
            f"Login     [bold]{studio.username}[/]",
            f"Password  [bold]{studio.password}[/]",
            "",
            "1. Sign in and click [bold]Label All Tasks[/].  The masks you see are proposals made from the labels' words.",
            f"2. Correct one: {', '.join(unknown)} are words the model never saw.",
            "   Pick the region in the list, paint what is missing (B), erase what is too much (E).",
            "3. Click [bold]Submit[/].  A line appears here when the token is learned, a few seconds later.",
            "4. Go on: pictures you open from now on show the class's better masks.",
            "",
            "[dim]Ctrl-C stops Label Studio and the backend.[/]",
        ]
    )
    return Panel(text, title="OVAM Labeler demo", expand=False)


def _watch(running: Running, console: Console) -> NoReturn:
    """Print one line for each job that ends, for ever; Ctrl-C leaves it."""
    store = running.app.store
    told = {job.id for job in store.list_jobs(states=("done", "failed"), limit=1000)}
    while True:
        for job in reversed(store.list_jobs(states=("done", "failed"), limit=100)):
            if job.id not in told:
                told.add(job.id)
                sign = "[green]✓[/]" if job.state == "done" else "[red]✗[/]"
                console.print(f"{sign} {job.kind}: ", end="")
                console.print(job.message or job.state, markup=False, highlight=False)
        time.sleep(LOOK)
