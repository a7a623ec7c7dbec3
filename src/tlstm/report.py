"""One page of everything: `python -m tlstm.report` writes results/report.html.

A single HTML file with its script, styles and pictures inside: it opens from the disk, with no
server and no network. It is made from the committed records alone; the same records give the
same bytes.
"""

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from bokeh.document import Document
from bokeh.resources import Resources

from tlstm.records import measurement as bench_store
from tlstm.records import table as tables
from tlstm.records.measurement import IMPLEMENTATIONS, Measurement
from tlstm.records.measures import STANDS_IN_FOR
from tlstm.records.schema import Record
from tlstm.records.store import latest, load
from tlstm.reporting import charts, rows, sections
from tlstm.reporting.comparison import LABELS
from tlstm.reporting.pages import TEMPLATES
from tlstm.reporting.verdicts import counted, judge_all, summary, task_title, told_apart
from tlstm.utils import replace_file, sentence

PICTURES = {".svg": "image/svg+xml", ".png": "image/png"}  # types of memory-cell pictures
MEMORY_CELLS = "fig6"
FILTERS = {"scale": "scale", "task": "task", "model": "configuration", "depth": "L", "seed": "seed"}


class Group(NamedTuple):
    """The content of the page for one scale and task."""

    scale: str
    task: str
    title: str
    sizes: str
    stands_in: bool
    depths: list[int]
    quality: str
    curves: list[charts.Chart]
    summaries: list[charts.Chart]
    ablations: list[sections.Ablation]


def read(results_dir: Path) -> tuple[list[Record], list[Measurement]]:
    """Read all committed records, each run once, and the benchmark's latest measurements.

    Raises:
        OSError, ValueError: a store cannot be read or holds a line that is not valid.
    """
    stores = sorted(results_dir.glob("*/records.jsonl"))
    names = [store.parent.name for store in stores if store.parent.name != bench_store.EXPERIMENT]
    records = [record for name in names for record in load(results_dir, name)]
    runs = latest(record for record in records if record.experiment not in tables.VARIED)
    known = {record.identifier for record in runs}
    others = latest(record for record in records if record.identifier not in known)
    return [*runs, *others], bench_store.latest(bench_store.load(results_dir))


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
    table = rows.run_table(records, times=rows.benchmark_times(measurements))
    parts = apart(table)
    groups = [runs for part in parts for _, runs in part.groupby(["scale", "task"], sort=False)]
    judgements = judge_all(records, measurements)
    reproduction_runs = next((part for part in parts if not _is_varied(part)), table[:0])
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            judgements=judgements,
            verdicts=summary(judgements),
            told_apart=told_apart(judgements),
            filters=filters(table),
            groups=[group_of(runs, records, f"group-{n}") for n, runs in enumerate(groups)],
            published=sections.published_tables(reproduction_runs, published),
            costs=rows.cost_rows(table),
            runs=sections.every_run(table),
            runtimes=sections.runtimes(measurements),
            runtime_charts=runtime_charts(measurements),
            implementations=IMPLEMENTATIONS,
            pictures=[pictured(picture) for picture in pictures],
            library="\n".join(Resources(mode="inline", components=["bokeh"]).js_raw),
        )
    )


def apart(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the runs of the reproduction, and of every other experiment; those that there are."""
    others = [table[table["experiment"] == experiment] for experiment in tables.VARIED]
    reproduction_runs = table[~table["experiment"].isin(tables.VARIED)]
    return [part for part in (reproduction_runs, *others) if len(part)]


def _is_varied(table: pd.DataFrame) -> bool:
    """Return whether runs are not of the reproduction."""
    return table["experiment"].iloc[0] in tables.VARIED


def group_of(table: pd.DataFrame, records: Sequence[Record], name: str) -> Group:
    """Return what the page shows of the runs of one scale and task.

    Args:
        table: their rows of `rows.run_table`; all of them of the reproduction, or of another
            experiment.
        records: these and others.
        name: of the group, unique on the page.
    """
    by_identifier = {record.identifier: record for record in records}
    points = {identifier: record.curve for identifier, record in by_identifier.items()}
    task = str(table["task"].iloc[0])
    experiment = f", {table['experiment'].iloc[0]}" if _is_varied(table) else ""
    return Group(
        scale=str(table["scale"].iloc[0]),
        task=task,
        title=task_title(task) + experiment,
        sizes=tables.sizes(table),
        stands_in=task in STANDS_IN_FOR,
        depths=sorted(int(depth) for depth in set(table["depth"])),
        quality=charts.quality(task),
        curves=charts.curves(table, points, f"{name}-curves"),
        summaries=summaries(table, name),
        ablations=sections.ablations(table, by_identifier),
    )


def summaries(table: pd.DataFrame, name: str) -> list[charts.Chart]:
    """Draw quality, samples to the threshold and runtime against L, for one scale and task.

    The runtime is the benchmark's where there is one, and of the machine with the most runs: two
    machines are never in one line.
    """
    graded = sections.with_quality(table).assign(label=tables.line_names(table, "depth"))
    solved = graded.dropna(subset=["samples_to_threshold"])
    timed = graded[graded["benchmark"]] if graded["benchmark"].any() else graded
    hardware = timed["hardware"].mode().iloc[0]
    shown = [
        (graded, "shown", charts.quality(str(table["task"].iloc[0])), ""),
        (solved, "samples_to_threshold", "samples to the threshold", ", of runs that passed it"),
        (
            timed[timed["hardware"] == hardware],
            "microseconds",
            "µs per timestep of a batch",
            f", {hardware}{', benchmark' if timed['benchmark'].all() else ''}",
        ),
    ]
    drawn = [
        (charts.against_depth(runs, column, title, f"{name}-{column}"), note)
        for runs, column, title, note in shown
        if len(runs)
    ]
    return [chart._replace(title=chart.title + note) for chart, note in drawn]


def runtime_charts(measurements: Sequence[Measurement]) -> list[charts.Chart]:
    """Draw the benchmark's runtime against L, by machine and task, each with its heading."""
    times = rows.benchmark_times(measurements)
    times["label"] = [LABELS.get(model, model) for model in times["model"]]
    found = []
    for number, ((hardware, scale, task), runs) in enumerate(
        times.groupby(["hardware", "scale", "task"], sort=False)
    ):
        quick = " (quick: short sequences)" if scale == "quick" else ""
        chart = charts.against_depth(
            runs, "microseconds", "µs per timestep of a batch", f"runtime-{number}"
        )
        heading = f"{task_title(str(task))}, {hardware}{quick}"
        found.append(chart._replace(title=heading))
    return found


def filters(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what can be filtered by, and the values that there are."""
    labels = dict(zip(table["model"], table["label"], strict=True))
    words = {"task": task_title, "model": lambda model: labels[model]}
    found = []
    for name, heading in FILTERS.items():
        values = list(dict.fromkeys(table[name]))
        ordered = sorted(values) if name in ("depth", "seed") else values
        if name == "model":
            ordered = sorted(values, key=tables.model_order)
        options = [
            {
                "value": str(value),
                "text": words.get(name, str)(value),
                "color": charts.color(value) if name == "model" else None,
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


def environment() -> jinja2.Environment:
    """Return templates that escape whatever records hold."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["counted"] = counted
    made.filters["embedded"] = embedded
    made.filters["task_title"] = task_title
    return made


def write_report(results_dir: Path, output: Path) -> None:
    """Make the page from the records below a directory.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: there are no records, or one is not valid.
    """
    records, measurements = read(results_dir)
    if not records:
        raise ValueError(
            f"there are no records below {results_dir}; make some with `make reproduce-fig4`"
        )
    published = tables.read_published(results_dir / "published.csv")
    text = render(records, measurements, published, memory_cells(results_dir))
    replace_file(output, text.encode())
    print(f"wrote {output}: {len(records)} runs, {len(text.encode()) / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 where there is no page to be made."""
    parser = argparse.ArgumentParser(prog="python -m tlstm.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIRECTORY")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: report.html beside the results"
    )
    chosen = parser.parse_args(arguments)
    try:
        write_report(chosen.results, chosen.output or chosen.results / "report.html")
    except (OSError, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
