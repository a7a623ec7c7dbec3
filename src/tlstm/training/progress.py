"""How far a run has come, for people who watch it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from tlstm.training.module import SequenceModule

DISPLAY_SECONDS = 0.2  # between two updates of a display
LINE_SECONDS = 30.0  # between two lines where there is no terminal to draw on


class Status(NamedTuple):
    """How far a run has come.

    Attributes:
        samples: training samples seen.
        accuracy: at the last validation, None before the first.
        samples_per_second: since the run began or went on.
    """

    samples: int
    accuracy: float | None
    samples_per_second: float


Report = Callable[[Status], None]


class SampleProgress(Callback):
    """Reports a run's status, a few times a second and at every validation."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._first_samples = 0
        self._accuracy: float | None = None
        self._started = self._reported = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._first_samples = self._samples(pl_module)
        self._started = time.perf_counter()
        self._send(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Report, unless the last report is very fresh."""
        if time.perf_counter() - self._reported > DISPLAY_SECONDS:
            self._send(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the new accuracy."""
        self._accuracy = float(trainer.callback_metrics["validation/accuracy"])
        self._send(pl_module)

    def _send(self, pl_module: LightningModule) -> None:
        self._reported = time.perf_counter()
        samples = self._samples(pl_module)
        elapsed = max(self._reported - self._started, 1e-9)
        self._report(
            Status(
                samples,
                self._accuracy,
                (samples - self._first_samples) / elapsed,
            )
        )

    @staticmethod
    def _samples(pl_module: LightningModule) -> int:
        assert isinstance(pl_module, SequenceModule)
        return pl_module.samples_seen


class SpeedColumn(ProgressColumn):
    """Samples per second, and the accuracy of the last validation."""

    def render(self, task: Task) -> Text:
        """The column of one run."""
        return Text(describe(task.fields.get("status")), style="progress.percentage")


def describe(status: Status | None) -> str:
    """A status in words: speed and accuracy."""
    if status is None:
        return "starting"
    speed = f"{status.samples_per_second:,.0f} samples/s"
    return speed if status.accuracy is None else f"{speed}, accuracy {status.accuracy:.1%}"


def bar(console: Console | None = None) -> Progress:
    """The display of runs: a bar, samples of at most so many, speed, accuracy, time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        SpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True),
        console=console,
    )


class Display:
    """Shows one run on the terminal, or in lines where the output is not one.

    A display is a context; while it lasts, `show` draws the status it is given.
    """

    def __init__(self, description: str, max_samples: int, console: Console) -> None:
        self._console = console
        self._description = description
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
                f"{self._description}: {status.samples:,} samples, {describe(status)}"
            )
