"""The report page's tables: ablations, published against measured, cost, runtime, every run.

Pure functions from records, measurements and published numbers to rows of text for the template.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tlstm.records import table as tables
from tlstm.records.measurement import IMPLEMENTATIONS, Implementation, Measurement
from tlstm.records.measurement_text import microseconds
from tlstm.records.measures import original
from tlstm.records.schema import (
    Record,
)
from tlstm.reporting.runtime_summary import Group, fastest, groups, title
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
    """What a configuration is made of: rank, feedback, memory convolution, normalization."""
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
    """The runs with `quality`, larger is better, and `shown`, the same as people read it.

    It is the test accuracy in per cent, for Wikipedia minus the bits per character; the best on
    the validation samples where there is none on the test samples.
    """
    metric, sign = ("bits_per_character", -1) if _is_wikipedia(table) else ("accuracy", 100)
    nothing = pd.Series(math.nan, index=table.index)
    test, best = (table.get(f"{of}_{metric}", nothing).astype(float) for of in ("test", "best"))
    quality = sign * test.fillna(best)
    return table.assign(quality=quality, shown=quality.abs(), selecting=sign * best)


def _is_wikipedia(table: pd.DataFrame) -> bool:
    return original(str(table["task"].iloc[0])) == "wikipedia"


def digits(table: pd.DataFrame) -> int:
    """Decimals that a task's quality is given with."""
    return 3 if _is_wikipedia(table) else 1


def ablations(table: pd.DataFrame, records: Mapping[str, Record]) -> list[Ablation]:
    """Configurations side by side, for one scale and task, of the same settings and M.

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
    text = tables.spread(runs["shown"], digits(runs))
    if runs["samples_to_threshold"].notna().any():
        text += f" · {tables.samples_text(runs)}"
    return text, bool(runs["quality"].mean() >= best)


def published_tables(table: pd.DataFrame, published: pd.DataFrame) -> list[dict[str, Any]]:
    """Tables 1 to 3: published rows, then for every scale and data the measured ones."""
    return [
        {
            "title": PUBLISHED_TITLES.get(str(name), str(name)),
            "task": task_title(str(task)),
            "published": rows.to_dict("records"),
            "measured": _measured(table, str(task)),
        }
        for (name, task), rows in published.groupby(["table", "task"], sort=False)
    ]


def _measured(table: pd.DataFrame, task: str) -> list[dict[str, Any]]:
    runs = table[table["task"].map(original) == task]
    groups = runs.groupby(["scale", "task", "model"], sort=False)
    return [_measured_row(best_line(with_quality(rows))) for _, rows in groups]


def best_line(runs: pd.DataFrame) -> pd.DataFrame:
    """Of a configuration's runs those of the L, M and settings that are best.

    That the largest share of seeds solves, then in the fewest samples, then by validation.
    """
    return max(tables.lines(runs), key=_merit)


def _merit(line: pd.DataFrame) -> tuple[float, float, float]:
    solved = line["samples_to_threshold"].astype(float).dropna()
    samples = solved.mean() if len(solved) else math.inf
    return len(solved) / len(line), -samples, line["selecting"].mean()


def _measured_row(runs: pd.DataFrame) -> dict[str, Any]:
    first = runs.to_dict("records")[0]
    return identity(first) | {
        "label": tables.label(runs),
        "channels": first["channels"],
        "parameters": tables.people(first["parameters"]),
        "seeds": len(runs),
        "value": tables.spread(runs["shown"], digits(runs)),
        "samples": tables.samples_text(runs),
        "data": first["task_size"],
        "minutes": f"{runs['device_seconds'].mean() / 60:.1f}",
        "hardware": first["hardware"],
        "commit": tables.distinct(commit(each) for each in runs["commit"]),
    }


def identity(run: Mapping[Any, Any]) -> dict[str, str]:
    """What the page's filters go by."""
    names = ("scale", "task", "model", "depth", "seed")
    return {name: str(run[name]) for name in names}


def commit(name: object) -> str:
    """A commit as people write it; a dash outside of a repository."""
    return name[:9] if isinstance(name, str) else tables.UNKNOWN


def every_run(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One row for each run with what it cost and the command that repeats it."""
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
                    "value": tables.spread(pd.Series([run["shown"]]), digits(runs)),
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


def costs(table: pd.DataFrame) -> list[dict[str, str]]:
    """What the runs of each experiment took, for each scale and hardware."""
    rows = []
    for (scale, experiment, hardware), runs in table.groupby(
        ["scale", "experiment", "hardware"], sort=False
    ):
        minutes = runs["device_seconds"] / 60
        rows.append(
            {
                "scale": str(scale),
                "experiment": str(experiment),
                "hardware": str(hardware),
                "runs": str(len(runs)),
                "each": f"{minutes.mean():.1f} ({minutes.min():.1f} to {minutes.max():.1f})",
                "device": f"{minutes.sum():.1f}",
                "wall": f"{runs['wall_seconds'].sum() / 60:.1f}",
            }
        )
    return rows


def runtimes(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The benchmark by machine: for every case the fastest of each implementation."""
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
    """Bars between a little below the shortest time and the longest."""
    start = math.log(least / 1.5)
    span = math.log(most) - start
    return {
        name: Bar(microseconds(time), (math.log(time) - start) / span if time else 0.0)
        for name, time in times.items()
    }
