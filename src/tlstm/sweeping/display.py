"""The display of a sweep: its progress, its throughput and its failures."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from tlstm.training.display import LINE_SECONDS, Status, bar, describe


class RunRow(NamedTuple):
    """A run as the display names it.

    Attributes:
        title: its task, model and seed in a few words.
        max_samples: training samples at the most.
        seconds: its time at the most; 0 where it is unknown.
        log: the file of its output.
    """

    title: str
    max_samples: int
    seconds: float
    log: str


def hours(seconds: float) -> str:
    """Write a duration for people: 40 s, 9 min, 3.5 h, 2.1 days."""
    for limit, unit, size in ((90, "s", 1), (90 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{int(size == 3600)}f} {unit}"
    return f"{seconds / 86400:.1f} days"


class SweepDisplay:
    """One bar for the whole sweep and one for every run in progress.

    Where the output is no terminal, it prints a line for every run that ends, and from time to
    time one with the progress of the others.
    """

    def __init__(self, rows: Sequence[RunRow], console: Console) -> None:
        self._rows = rows
        self._console = console
        self._done = 0
        self._tasks: dict[int, TaskID] = {}
        self._seconds: dict[int, float] = {}
        self._statuses: dict[int, Status] = {}  # of runs in progress
        self._started = self._printed = time.perf_counter()
        self._overall = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[runs]} of " + f"{len(rows)} runs"),
            TimeRemainingColumn(),
            TextColumn("left at the most"),
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, index: int, status: Status) -> None:
        """Draw the progress of a run."""
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

    def ended(self, index: int, failure: str | None, outcome: str) -> None:
        """Print that a run has ended, with its outcome or its failure."""
        row = self._rows[index]
        if index in self._tasks:
            self._active.remove_task(self._tasks.pop(index))
            del self._statuses[index]
        self._done += 1
        self._advance(index, row.seconds)
        self._overall.update(self._all, runs=self._done)
        sign = "[red]failed[/red]" if failure else "done"
        elapsed = hours(time.perf_counter() - self._started)
        self._console.print(
            f"{sign} {self._done}/{len(self._rows)} after {elapsed}: {row.title}: "
            f"{failure or outcome}",
            soft_wrap=True,
            highlight=False,
        )

    def _print_statuses(self) -> None:
        self._printed = time.perf_counter()
        said = "; ".join(
            f"{self._rows[index].title}: {status.samples:,} of "
            f"{self._rows[index].max_samples:,} samples, {describe(status)}"
            for index, status in self._statuses.items()
        )
        elapsed = hours(self._printed - self._started)
        self._console.print(f"after {elapsed}: {said}", soft_wrap=True, highlight=False)

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
            f"{self.samples:,} training samples in {hours(seconds)}, "
            f"{rate:,.0f} a second of all runs together"
        )


def failures_table(rows: Sequence[RunRow], failures: Mapping[int, str]) -> Table:
    """Return a table of the runs that failed, with the reasons."""
    table = Table("run", "why it failed", "all it printed", title=f"{len(failures)} runs failed")
    for index, reason in sorted(failures.items()):
        table.add_row(rows[index].title, reason, rows[index].log)
    return table
