"""The progress of runs on a terminal, or in lines of a log.

Lightning's RichProgressBar counts the batches of an epoch; a run is measured in samples, and a
sweep shows runs of other processes.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

DISPLAY_SECONDS = 0.2  # between two updates of a display
LINE_SECONDS = 30.0  # between two lines of a log
YEAR_SECONDS = 365 * 86400


class Status(NamedTuple):
    """The progress of a run.

    Attributes:
        samples: training samples seen.
        accuracy: at the last validation, None before the first.
        samples_per_second: since the run began or resumed.
    """

    samples: int
    accuracy: float | None
    samples_per_second: float


Report = Callable[[Status], None]


class SpeedColumn(ProgressColumn):
    """Samples per second, and the accuracy of the last validation."""

    def render(self, task: Task) -> Text:
        """Return the text for one run."""
        return Text(describe(task.fields.get("status")), style="progress.percentage")


def describe(status: Status | None) -> str:
    """Return speed and accuracy in words."""
    if status is None:
        return "starting"
    speed = f"{status.samples_per_second:,.0f} samples/s"
    return speed if status.accuracy is None else f"{speed}, accuracy {status.accuracy:.1%}"


def ends(status: Status, max_samples: int, now: datetime) -> str:
    """Return the time of day at which a run has ended, at the latest."""
    seconds = (max_samples - status.samples) / max(status.samples_per_second, 1e-9)
    if seconds > YEAR_SECONDS:
        return "for more than a year"
    end = now + timedelta(seconds=seconds)
    return f"until {end:%H:%M}{'' if end.date() == now.date() else f' on {end:%A %d %B}'} at most"


def bar(console: Console | None = None) -> Progress:
    """Return a display of runs: a bar, samples seen and in total, speed, accuracy, time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        SpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True),
        console=console,
    )


class Display:
    """Show one run while its context lasts, by a bar on a terminal and by lines elsewhere."""

    def __init__(self, description: str, max_samples: int, console: Console) -> None:
        self._console = console
        self._description = description
        self._max_samples = max_samples
        self._progress = bar(console)
        self._task = self._progress.add_task(description, total=max_samples, status=None)
        self._printed = time.perf_counter()

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def show(self, status: Status) -> None:
        """Draw a status."""
        self._progress.update(self._task, completed=status.samples, status=status)
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._printed > LINE_SECONDS:
            self._printed = now
            self._console.print(
                f"{self._description}: {status.samples:,} of {self._max_samples:,} samples, "
                f"{describe(status)}, {ends(status, self._max_samples, datetime.now())}",
                soft_wrap=True,
            )
