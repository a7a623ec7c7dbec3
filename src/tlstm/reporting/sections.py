"""The report page's tables: ablations, published against measured, cost, runtime, every run.

Pure functions from records, measurements and published numbers to rows of text for the template.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tlstm.records import table as tables
from tlstm.records.measurement import (
    IMPLEMENTATIONS,
    Implementation,
    Measurement,
    format_microseconds,
)
from tlstm.records.measures import measure_of
from tlstm.records.schema import Record
from tlstm.reporting.rows import compared_row, mean_range, quality
from tlstm.reporting.runtime import Group, fastest, groups, title
from tlstm.reporting.verdicts import task_title

PUBLISHED_TITLES = {
    "table1": "Table 1: Wikipedia, bits per character",
    "table2": "Table 2: addition and memorization, accuracy (%) and training samples",
    "table3": "Table 3: sequential and permuted MNIST, test accuracy (%)",
}
NONE = "none"
SUITES = ("targets", "step")  # of the benchmark, shown as bars


class Ablation(NamedTuple):
    """One configuration beside the others of its scale and task.

    Attributes:
        model: the configuration's name.
        label: the paper's.
        settings: rank, feedback, memory convolution and normalization, in words.
        cells: for every L the quality, and whether it is the best of its column.
    """

    model: str
    label: str
    settings: list[str]
    cells: list[tuple[str, bool]]


class Bar(NamedTuple):
    """A runtime, and how long its bar is from 0 to 1 on a logarithmic scale."""

    text: str
    length: float


def settings(record: Record) -> list[str]:
    """Return the parts of a configuration: rank, feedback, memory convolution, normalization."""
    model = record.config.get("model")
    core = model.get("core") if isinstance(model, dict) else None
    if not isinstance(core, dict) or "rank" not in core:
        return [tables.UNKNOWN] * 4
    feedback = int(str(core.get("kernel_size", 3))) % 2 == 1
    memory = core.get("memory_convolution")
    return [
        str(core["rank"]),
        "yes" if feedback else "no",
        tables.UNKNOWN if memory is None else "yes" if memory else "no",
        str(core.get("normalization") or NONE),
    ]


def with_quality(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with `shown`, their quality for people, and `quality`: larger is better."""
    measure = measure_of(str(table["task"].iloc[0]))
    shown = quality(table)
    return table.assign(shown=shown, quality=shown if measure.higher_is_better else -shown)


def ablations(table: pd.DataFrame, records: Mapping[str, Record]) -> list[Ablation]:
    """Compare configurations side by side, for one scale and task, of the same settings and M.

    Args:
        table: their rows of `run_table`.
        records: by identifier.
    """
    table = with_quality(table)
    depths = sorted(set(table["depth"]))
    means = table.groupby(["depth", "model", "channels", "variant"])["quality"].mean()
    best = means.groupby("depth").max().where(means.groupby("depth").size() > 1)
    rows = []
    for (model, _, _), runs in table.groupby(["model", "channels", "variant"], sort=False):
        cells = [_cell(runs[runs["depth"] == depth], best[depth]) for depth in depths]
        record = records[runs["identifier"].iloc[0]]
        name = f"{tables.label(runs)}, M = {record.channels}"
        rows.append(Ablation(str(model), name, settings(record), cells))
    return rows


def _cell(runs: pd.DataFrame, best: float) -> tuple[str, bool]:
    if runs.empty:
        return tables.UNKNOWN, False
    text = mean_range(runs["shown"], measure_of(str(runs["task"].iloc[0])).digits)
    if runs["samples_to_threshold"].notna().any():
        text += f" · {tables.samples_text(runs)}"
    return text, bool(runs["quality"].mean() >= best)


def published_tables(table: pd.DataFrame, published: pd.DataFrame) -> list[dict[str, Any]]:
    """Return Tables 1 to 3: each published row beside the runs that it is compared with."""
    found = []
    for (name, task), of_task in published.groupby(["table", "task"], sort=False):
        compared = [compared_row(row, table) for row in of_task.to_dict("records")]
        title = PUBLISHED_TITLES.get(str(name), str(name))
        found.append(
            {
                "title": title,
                "task": task_title(str(task)),
                "columns": list(compared[0]),
                "compared": compared,
            }
        )
    return found


def identity(run: Mapping[Any, Any]) -> dict[str, str]:
    """Return the values that the page's filters go by."""
    names = ("scale", "task", "model", "depth", "seed")
    return {name: str(run[name]) for name in names}


def commit(name: object) -> str:
    """Return a commit as people write it; a dash outside of a repository."""
    return name[:9] if isinstance(name, str) else tables.UNKNOWN


def every_run(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row for each run with what it cost and the command that repeats it."""
    rows = []
    for _, runs in table.groupby(["scale", "task"], sort=False):
        for run in with_quality(runs).to_dict("records"):
            rows.append(
                identity(run)
                | {
                    "title": task_title(run["task"]),
                    "label": f"{run['label']} ({run['variant']})"
                    if run["variant"]
                    else run["label"],
                    "channels": run["channels"],
                    "value": mean_range(pd.Series([run["shown"]]), measure_of(run["task"]).digits),
                    "samples": tables.people(run["samples"]),
                    "outcome": run["outcome"],
                    "minutes": f"{run['device_seconds'] / 60:.1f}",
                    "hardware": run["hardware"],
                    "finished": f"{run['finished']:%Y-%m-%d %H:%M} UTC",
                    "commit": commit(run["commit"]) + ("+" if run["modified"] else ""),
                    "command": run["command"],
                }
            )
    return rows


def runtimes(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return the benchmark by machine: for every case the fastest of each implementation."""
    machines: dict[tuple[bool, str], list[Group]] = {}
    for group in groups(measurements):
        if group[0].case.suite in SUITES:
            key = group[0].quick, group[0].hardware.device
            machines.setdefault(key, []).append(group)
    return [
        {"machine": device, "quick": quick, "cases": _cases(found)}
        for (quick, device), found in sorted(machines.items(), key=lambda item: item[0])
    ]


def _cases(found: Iterable[Group]) -> list[dict[str, Any]]:
    times = {
        title(group[0]): {name: _microseconds(group, name) for name in IMPLEMENTATIONS}
        for group in found
    }
    known = [time for case in times.values() for time in case.values() if time]
    return [
        {"title": name, "bars": _bars(case, min(known), max(known))} for name, case in times.items()
    ]


def _microseconds(group: Group, implementation: Implementation) -> float | None:
    best = fastest(group, [implementation])
    return best.microseconds if best else None


def _bars(
    times: Mapping[Implementation, float | None], least: float, most: float
) -> dict[Implementation, Bar]:
    """Return bars between a little below the shortest time and the longest."""
    start = math.log(least / 1.5)
    span = math.log(most) - start
    return {
        name: Bar(format_microseconds(time), (math.log(time) - start) / span if time else 0.0)
        for name, time in times.items()
    }
