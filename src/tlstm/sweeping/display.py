"""The display of a sweep: its progress, its throughput and its failures."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from tlstm.training.display import LINE_SECONDS, Status, bar, describe
from tlstm.utils import duration


class RunRow(NamedTuple):
    """A run as the display names it.

    Attributes:
        title: its task, model and seed in a few words.
        max_samples: training samples at the most.
        seconds: its time at the most; 0 where it is unknown.
        log: the file of its output, in its directory.
    """

    title: str
    max_samples: int
    seconds: float
    log: Path


class SweepDisplay:
    """One bar for the whole sweep and one for every run in progress.

    Where the output is no terminal, it prints a line for every run that ends, and from time to
    time one with the progress of the others.

    Attributes:
        throughput: of the runs so far.
    """

    def __init__(self, rows: Sequence[RunRow], console: Console) -> None:
        self.throughput = Throughput()
        self._rows = rows
        self._console = console
        self._done = 0
        self._tasks: dict[int, TaskID] = {}
        self._seconds: dict[int, float] = {}
        self._statuses: dict[int, Status] = {}  # of runs in progress
        self._started = self._printed = time.perf_counter()
        self._overall = Progress(
            TextColumn("{task.description}", "bold"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[runs]} of " + f"{len(rows)} runs"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        total = sum(row.seconds for row in rows)
        self._all = self._overall.add_task("sweep", total=total, runs=0)
        self._active = bar(console)
        self._live = Live(Group(self._overall, self._active), console=console)

    def __enter__(self) -> "SweepDisplay":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, index: int, status: Status) -> None:
        """Draw the progress of a run."""
        self.throughput.note(index, status)
        row = self._rows[index]
        if index not in self._tasks:
            self._tasks[index] = self._active.add_task(
                row.title, total=row.max_samples, completed=status.samples, status=status
            )
        self._active.update(self._tasks[index], completed=status.samples, status=status)
        self._advance(index, row.seconds * status.samples / row.max_samples)
        self._statuses[index] = status
        if not self._console.is_terminal and time.perf_counter() - self._printed > LINE_SECONDS:
            self._print_statuses()

    def ended(self, index: int, outcome: str, failed: bool) -> None:
        """Print that a run has ended, with its outcome or the reason why it failed."""
        row = self._rows[index]
        if index in self._tasks:
            self._active.remove_task(self._tasks.pop(index))
            del self._statuses[index]
        self._done += 1
        self._advance(index, row.seconds)
        self._overall.update(self._all, runs=self._done)
        elapsed = duration(time.perf_counter() - self._started)
        self._console.print(
            Text("failed" if failed else "done", "red" if failed else "").append(
                f" {self._done}/{len(self._rows)} after {elapsed}: {row.title}: {outcome}", ""
            ),
            soft_wrap=True,
        )

    def _print_statuses(self) -> None:
        self._printed = time.perf_counter()
        said = "; ".join(
            f"{self._rows[index].title}: {status.samples:,} of "
            f"{self._rows[index].max_samples:,} samples, {describe(status)}"
            for index, status in self._statuses.items()
        )
        elapsed = duration(self._printed - self._started)
        self._console.print(f"after {elapsed}: {said}", soft_wrap=True)

    def _advance(self, index: int, seconds: float) -> None:
        self._seconds[index] = seconds
        self._overall.update(self._all, completed=sum(self._seconds.values()))


class Throughput:
    """The training samples per second of all runs together, from the first report to the last.

    The start of the processes before the first report does not count.
    """

    def __init__(self) -> None:
        self._first: dict[int, int] = {}  # samples at a run's first report and its last, by index
        self._last: dict[int, int] = {}
        self._times: list[float] = []

    def note(self, index: int, status: Status) -> None:
        """Count a run's status."""
        self._first.setdefault(index, status.samples)
        self._last[index] = status.samples
        self._times = [*self._times[:1], time.perf_counter()]

    @property
    def samples(self) -> int:
        """The training samples of all runs."""
        return sum(self._last.values()) - sum(self._first.values())

    def in_words(self) -> str:
        """Return the throughput as a clause."""
        seconds = self._times[-1] - self._times[0] if self._times else 0.0
        rate = self.samples / seconds if seconds else 0.0
        return (
            f"{self.samples:,} training samples in {duration(seconds)}, "
            f"{rate:,.0f} a second of all runs together"
        )


def failures_text(rows: Sequence[RunRow], failures: Mapping[int, str]) -> str:
    """Return a line for each run that failed, with the reason, and one with all that it printed."""
    lines = [
        f"{rows[index].title}: {reason}\n    all it printed: {rows[index].log}"
        for index, reason in sorted(failures.items())
    ]
    heading = f"{len(lines)} runs failed; the same command tries them again, and only them:"
    return "\n".join([heading, *lines]) if lines else ""


def next_steps(rows: Sequence[RunRow]) -> str:
    """Return where the runs lie, and the commands that draw them beside the committed ones."""
    places = sorted({row.log.parent.parent for row in rows})
    said = f"The runs are in {', '.join(map(str, places))}"
    names = " ".join(place.name for place in places if place.name != "scratch")
    if not names:
        return f"{said}; `tensorboard --logdir {places[0]}` shows them."
    runs, drawn = (
        shlex.quote(str(path)) for path in (places[0].parent, places[0].parent / "results")
    )
    return (
        f"{said}. To draw them beside the committed ones:\n"
        f"  python -m tlstm.results copy --results {drawn}\n"
        f"  python -m tlstm.results collect --runs {runs} --results {drawn} {names}\n"
        f"  python -m tlstm.figures --results {drawn} {names}"
    )
