"""What the benchmark says on the terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tlstm.ops.device import gpu_name
from tlstm.records import provenance
from tlstm.records.measurement import Case, Competitor, Measurement
from tlstm.records.measurement_text import COLUMNS, UNKNOWN, case_title, number


def announcement(
    works: Sequence[tuple[Case, list[Competitor]]],
    quick: bool,
    device: torch.device,
    rate: float,
    expected: float,
) -> str:
    """What is going to be measured, on what, and for how long."""
    name = gpu_name(device) or provenance.processor()
    pairs = sum(len(competitors) for _, competitors in works)
    text = (
        f"{len(works)} cases, {pairs} measurements on {name}, which multiplies large matrices "
        f"at {rate / 1e12:.3g} TFLOP/s; about {_minutes(expected)}."
    )
    if quick:
        text += " QUICK: short sequences, and without the large cases."
    return text


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


class Running:
    """The display while the benchmark runs: a bar on a terminal, tables on both."""

    def __init__(self, console: Console, bar: Progress, total: int) -> None:
        self._console, self._bar = console, bar
        self._task = bar.add_task("starting", total=total)
        self._started = time.perf_counter()

    def begin(self, case: Case) -> Callable[[str], None]:
        """A case begins; returns what is to be told what happens in it."""
        return lambda text: self._bar.update(
            self._task, description=f"{case.suite} {case.name}: {text}"
        )

    def end(self, table: RenderableType) -> None:
        """A case is done."""
        self._bar.advance(self._task)
        self._console.print(table)
        self._console.print(f"{_minutes(time.perf_counter() - self._started)} so far")


@contextmanager
def progress(console: Console, total: int) -> Iterator[Running]:
    """The display of so many cases."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn()
    bar = Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        yield Running(console, bar, total)


def case_table(measurements: Sequence[Measurement]) -> RenderableType:
    """All that was measured of one case, but for the kernels."""
    done = [each for each in measurements if each.failure is None]
    table = Table(title=case_title(measurements[0]), title_justify="left")
    table.add_column("competitor", no_wrap=True)
    columns = {name: [show(each) for each in done] for name, show in COLUMNS.items()}
    shown = {name: texts for name, texts in columns.items() if set(texts) - {UNKNOWN}}
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for each, *texts in zip(done, *shown.values(), strict=True):
        table.add_row(each.competitor.name, *texts)
    failed = [f"failed: {m.competitor.name}: {m.failure}" for m in measurements if m.failure]
    return Group(table, *failed)


def outcome(measurements: Sequence[Measurement], output: Path) -> RenderableType:
    """Kernels, how many failed, and where the records are."""
    counted = [each for each in measurements if each.main.kernels is not None]
    parts: list[RenderableType] = []
    if counted:
        table = Table(title="GPU kernels per timestep", title_justify="left")
        for name in ("case", "implementation", "forward", "forward + backward"):
            table.add_column(name)
        seen = set()
        for each in counted:
            key = f"{each.case.suite} {each.case.name}", each.competitor.implementation
            if key not in seen:
                seen.add(key)
                training = each.training.kernels if each.training else None
                table.add_row(*key, number(each.forward.kernels, ".3g"), number(training, ".3g"))
        parts.append(table)
    failed = sum(each.failure is not None for each in measurements)
    parts.append(f"{len(measurements)} measurements, {failed} of them failed, in {output}")
    return Group(*parts)
