"""One page of everything: `python -m tlstm.report` writes results/report.html.

A single HTML file with its script, styles and pictures inside: it opens from the disk, with no
server and no network. It is made from the committed records alone; the same records give the
same bytes.
"""

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from bokeh.document import Document
from bokeh.resources import Resources

from tlstm.records import measurement as bench_store
from tlstm.records import table as tables
from tlstm.records.measurement import Measurement
from tlstm.records.measures import STANDS_IN_FOR
from tlstm.records.schema import Record
from tlstm.records.store import latest, load_all
from tlstm.reporting import charts, pages, rows, runtime
from tlstm.reporting.claims import counted, judge_all, plateau_verdicts, summary
from tlstm.reporting.comparison import LABELS
from tlstm.utils import (
    CommandParser,
    check_directory,
    complain,
    printable,
    replace_file,
    run_main,
    sentence,
)

PICTURES = {".svg": "image/svg+xml", ".png": "image/png"}  # types of memory-cell pictures
MEMORY_CELLS = "fig6"
FILTERS = {"scale": "scale", "task": "task", "model": "configuration", "depth": "L", "seed": "seed"}
QUICK = "quick"  # the scale of measurements of short sequences


def read(results_dir: Path) -> tuple[list[Record], list[Measurement], list[str]]:
    """Read all committed records, each run once, and the benchmark's latest measurements.

    Returns:
        The records, the measurements, and a sentence for each store of records that is left out.

    Raises:
        OSError, ValueError: the measurements cannot be read.
    """
    stores, problems = load_all(results_dir)
    records = list(chain.from_iterable(stores.values()))
    runs = latest(record for record in records if record.experiment not in tables.VARIED)
    known = {record.identifier for record in runs}
    others = latest(record for record in records if record.identifier not in known)
    return [*runs, *others], bench_store.latest(bench_store.load(results_dir)), problems


def render(
    records: Sequence[Record],
    measurements: Sequence[Measurement],
    published: pd.DataFrame,
    pictures: Sequence[Path] = (),
) -> str:
    """Return the page, in HTML.

    Args:
        records: each run once, at least one.
        measurements: of the benchmark; there may be none.
        published: the rows of published.csv.
        pictures: of memory cells.
    """
    times = rows.benchmark_times(measurements)
    times["label"] = [LABELS.get(model, model) for model in times["model"]]
    table = rows.run_table(records, times=times)
    judgements = judge_all(records, measurements)
    groups = [
        group_of(runs, records, published, f"group-{number}")
        for number, runs in enumerate(by_group(table))
    ]
    own = table[~table["experiment"].isin(tables.VARIED)]
    made = pages.templates(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"counted": counted, "embedded": embedded, "task_title": rows.task_title}
    return made.get_template("report.html.jinja").render(
        judgements=judgements,
        verdicts=summary(judgements),
        plateau_verdicts=plateau_verdicts(judgements),
        filters=filters(table, quick=any(each.quick for each in measurements)),
        groups=groups,
        published=pages.published_tables(published, own),
        costs=rows.cost_rows(table),
        runs=every_run(table),
        runtimes=runtimes(measurements),
        runtime_charts=charts.runtimes(times),
        pictures=[pictured(picture) for picture in pictures],
        library="\n".join(Resources(mode="inline", components=["bokeh"]).js_raw),
    )


def by_group(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the runs by scale and task: of the reproduction, then of every other experiment."""
    others = [table[table["experiment"] == experiment] for experiment in tables.VARIED]
    parts = [table[~table["experiment"].isin(tables.VARIED)], *others]
    return [runs for part in parts for _, runs in part.groupby(["scale", "task"], sort=False)]


def group_of(
    table: pd.DataFrame, records: Iterable[Record], published: pd.DataFrame, name: str
) -> dict[str, Any]:
    """Return what the page shows of the runs of one scale and task.

    Args:
        table: their rows of `rows.run_table`; all of them of the reproduction, or of another
            experiment.
        records: these and others.
        published: the rows of published.csv.
        name: of the group, unique on the page.
    """
    points = {record.identifier: record.curve for record in records}
    scale, task, experiment = (str(table[part].iloc[0]) for part in ("scale", "task", "experiment"))
    marks = tables.published_marks(published, task) if scale == "paper" else []
    other = f", {experiment}" if experiment in tables.VARIED else ""
    return {
        "scale": scale,
        "task": task,
        "title": rows.task_title(task) + other,
        "sizes": tables.sizes(table),
        "stands_in": task in STANDS_IN_FOR,
        "depths": sorted(int(depth) for depth in set(table["depth"])),
        "curves": charts.curves(table, points, f"{name}-curves", marks),
        "summaries": charts.summaries(table, name),
        "lines": side_by_side(table),
    }


def side_by_side(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for every configuration: its result at every L, and whether it is the best.

    Args:
        table: rows of `rows.run_table`, of one scale and task.
    """
    by_depth = dict(list(table.groupby("depth")))
    best = {
        depth: set(rows.best_line(runs).index if len(tables.lines(runs)) > 1 else ())
        for depth, runs in by_depth.items()
    }
    lines = []
    for (model, label, variant, channels), runs in table.groupby(
        ["model", "label", "variant", "channels"], sort=False
    ):
        at = dict(list(runs.groupby("depth")))
        cells = [
            (_cell(at[depth]), set(at[depth].index) == best[depth])
            if depth in at
            else (tables.UNKNOWN, False)
            for depth in by_depth
        ]
        name = f"{label}{f' ({variant})' if variant else ''}, M = {channels}"
        lines.append({"model": model, "label": name, "cells": cells})
    return lines


def _cell(runs: pd.DataFrame) -> str:
    some = runs["samples_to_threshold"].notna().any()
    return rows.result(runs) if some else rows.quality_text(runs)


def every_run(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row for each run with what it cost and the command that repeats it."""
    return [
        {name: str(run[name]) for name in FILTERS}
        | {
            "title": rows.task_title(run["task"]),
            "label": f"{run['label']} ({run['variant']})" if run["variant"] else run["label"],
            "channels": run["channels"],
            "value": rows.quality_text(table.loc[[place]]),
            "samples": tables.people(run["samples"]),
            "outcome": run["outcome"],
            "minutes": f"{run['device_seconds'] / 60:.1f}",
            "hardware": run["hardware"],
            "finished": f"{run['finished']:%Y-%m-%d}",
            "commit": (run["commit"] or tables.UNKNOWN)[:9] + ("+" if run["modified"] else ""),
            "command": run["command"],
        }
        for place, run in zip(table.index, table.to_dict("records"), strict=True)
    ]


def runtimes(measurements: Sequence[Measurement]) -> list[Mapping[str, Any]]:
    """Return the benchmark's tables by machine: sequences with a target, and single timesteps."""
    return [
        {"machine": machine, "rows": runtime.known(map(row, found))}
        for machine, shown in runtime.machines(measurements).items()
        for suite, row in (("targets", runtime.target_row), ("step", runtime.step_row))
        if (found := runtime.groups(shown, suite))
    ]


def filters(table: pd.DataFrame, quick: bool = False) -> list[dict[str, Any]]:
    """Return what can be filtered by, and the values that there are.

    The page opens with the paper's scale alone, where there are runs of it.

    Args:
        table: all runs.
        quick: whether there are measurements of short sequences, which have a scale of their own.
    """
    labels = dict(zip(table["model"], table["label"], strict=True))
    words = {"task": rows.task_title, "model": lambda model: labels[model]}
    other_scales = (table["scale"] == "paper").any()
    found = []
    for name, heading in FILTERS.items():
        values = list(dict.fromkeys(table[name]))
        ordered = sorted(values) if name in ("depth", "seed") else values
        if name == "model":
            ordered = sorted(values, key=tables.model_order)
        if name == "scale":
            ordered = sorted(values, key=tables.scale_order) + [QUICK] * quick
        options = [
            {
                "value": str(value),
                "text": words.get(name, str)(value),
                "color": charts.color(value) if name == "model" else None,
                "checked": not (other_scales and name == "scale" and value != "paper"),
            }
            for value in ordered
        ]
        found.append({"name": name, "heading": heading, "options": options})
    return found


def embedded(drawn: Sequence[charts.Chart]) -> str:
    """Return the charts as one Bokeh document and their elements, as a script element's JSON."""
    document = Document()
    for chart in drawn:
        document.add_root(chart.figure)
    places = {chart.figure.id: chart.name for chart in drawn}
    found = {"document": document.to_json(deferred=False), "places": places}
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")


def pictured(picture: Path) -> dict[str, Any]:
    """Return a memory-cell picture, SCALE-TASK by name, with an address that holds all of it."""
    scale, _, task = picture.stem.partition("-")
    content = base64.b64encode(picture.read_bytes()).decode()
    return {
        "scale": scale,
        "task": task,
        "stands_in": task in STANDS_IN_FOR,
        "address": f"data:{PICTURES[picture.suffix]};base64,{content}",
    }


def memory_cells(results_dir: Path) -> list[Path]:
    """Return the memory-cell pictures, one kind of file for each: the smaller."""
    found: dict[str, Path] = {}
    for path in sorted((results_dir / MEMORY_CELLS).glob("*")):
        if path.suffix in PICTURES:
            other = found.get(path.stem, path)
            found[path.stem] = min(path, other, key=lambda each: each.stat().st_size)
    return list(found.values())


def write_report(results_dir: Path, output: Path) -> list[str]:
    """Make the page from the records below a directory.

    Returns:
        A sentence for each store that is left out.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: there are no records, or the other numbers are not valid.
    """
    records, measurements, problems = read(results_dir)
    if not records and problems:
        return problems
    if not records:
        raise ValueError(
            f"there are no records below {results_dir}; make some with `make reproduce-fig4`"
        )
    published = tables.read_published(results_dir / "published.csv")
    text = render(records, measurements, published, memory_cells(results_dir))
    replace_file(output, text.encode())
    size = len(text.encode()) / 1e6
    print(f"wrote {printable(output)}: {len(records)} runs, {size:.1f} MB")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 where something is left out."""
    parser = CommandParser(prog="python -m tlstm.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIRECTORY")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: report.html beside the results"
    )
    chosen = parser.parse_args(arguments)
    try:
        output = chosen.output or chosen.results / "report.html"
        check_directory(output)
        problems = write_report(chosen.results, output)
    except (OSError, ValueError) as error:
        problems = [sentence(error)]
    for problem in problems:
        complain(problem)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
