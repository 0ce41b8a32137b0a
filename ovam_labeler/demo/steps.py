"""Progress of a long run: one bar a step on a terminal, one line a step where output goes to a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from backends.contract import Progress as ProgressCallback
from ovam_labeler.evaluation.measure import Tick


class Steps:
    """Call with a text to begin a step; returns the callback that takes its share done.  Also times the steps."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Steps:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the bars as they are; lines printed from now on stand below them."""
        self._bars.stop()

    def __call__(self, text: str) -> Tick:
        bar: TaskID = self._bars.add_task(text, total=1.0)
        begin, ended = time.perf_counter(), False

        def tick(share: float) -> None:
            nonlocal ended
            self._bars.update(bar, completed=min(max(share, 0.0), 1.0))
            if share >= 1 and not ended:
                ended = True
                if not self.console.is_terminal:
                    self.console.print(f"{text}: {time.perf_counter() - begin:.1f} s", markup=False, highlight=False)

        return tick

    def named(self, text: str) -> ProgressCallback:
        """A step whose callback also takes a sentence, which replaces the bar's text."""
        tick = self(text)
        bar = self._bars.task_ids[-1]

        def update(share: float, sentence: str) -> None:
            if sentence:
                self._bars.update(bar, description=sentence)
            tick(share)

        return update
