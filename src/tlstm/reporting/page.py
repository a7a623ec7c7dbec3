"""The page of an experiment: what was run, at what cost, and how it compares.

Everything here is text made of records and of the published numbers; nothing is written.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from tlstm.records import table as tables
from tlstm.records.measures import STANDS_IN_FOR, measure_of
from tlstm.records.schema import (
    Record,
)
from tlstm.records.store import (
    latest,
)
from tlstm.reporting import growth, repeats, rows
from tlstm.reporting.beside import measured_beside

TEMPLATES = Path(__file__).parent / "templates"


class Heading(NamedTuple):
    """What an experiment is called on its page.

    Attributes:
        name: of the experiment, "fig4".
        title: of the page.
        command: makes the records.
    """

    name: str
    title: str
    command: str


def page(
    records: Sequence[Record],
    published: pd.DataFrame,
    times: pd.DataFrame,
    pictures: Collection[str],
    heading: Heading,
    beside: Sequence[Record] = (),
) -> str:
    """The page, in Markdown: published rows, then scales from the paper's down, smoke last.

    Args:
        records: of all runs, of those that were done again all times; there may be none yet.
        published: the rows of published.csv that the page shows.
        times: of the benchmark, as `growth.of_measurements` has them.
        pictures: that are drawn, <scale>-<task>.
        heading: of the page.
        beside: runs of the reproduction that the page's runs are named by their differences from.
    """
    scales = sorted({record.scale for record in records}, key=tables.scale_order)
    asked = [record for record in latest(records) if record.experiment not in tables.VARIED]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    return environment.get_template("results.md.jinja").render(
        title=heading.title,
        experiment=heading.name,
        stores=_stores(records, heading.name),
        published=_published(published, asked),
        beside=any(record.scale == "paper" for record in asked),
        scales=[
            _scale([r for r in records if r.scale == name], beside, times, pictures)
            for name in scales
        ],
        named_by_differences=bool(beside),
        measures={measure_of(record.task).name for record in records},
        command=heading.command,
        one_run=tables.run_table(latest(records))["command"].iloc[0] if records else None,
    )


def _stores(records: Iterable[Record], name: str) -> list[str]:
    """Where the records are kept, as seen from the page."""
    experiments = sorted({record.experiment for record in records})
    return ["records.jsonl" if e == name else f"../{e}/records.jsonl" for e in experiments]


def _published(published: pd.DataFrame, records: Iterable[Record]) -> list[dict[str, str]]:
    """A table of published rows for each task, beside what was measured at the paper's scale."""
    at_papers_scale = [record for record in records if record.scale == "paper"]
    shown = []
    for task, group in published.groupby("task", sort=False):
        table = rows.published(group.reset_index(drop=True))
        same = [record for record in at_papers_scale if record.task == task]
        if same:
            beside = measured_beside(group.reset_index(drop=True), tables.run_table(same))
            table = pd.concat([table.drop(columns="source"), beside, table["source"]], axis=1)
        shown.append({"title": task_title(str(task)), "rows": markdown(table)})
    return shown


def _scale(
    records: Sequence[Record],
    beside: Sequence[Record],
    times: pd.DataFrame,
    pictures: Collection[str],
) -> dict[str, object]:
    """What the page says about one scale."""
    again = repeats.in_words(records)
    records = latest(records)
    table = growth.by_benchmark(tables.run_table(records, beside), times)
    name = table["scale"].iloc[0]
    groups = list(table.groupby("task"))
    return {
        "name": name,
        "sizes": tables.sizes(table),
        "others": [task for task in dict.fromkeys(table["task"]) if task in STANDS_IN_FOR],
        "sees_ahead": bool(table["sees_ahead"].any()),
        "benchmark": bool(table["benchmark"].any()),
        "pictures": [
            {"file": f"{name}-{task}.svg", "alt": f"{tables.sizes(runs)}, {name} scale"}
            for task, runs in groups
            if f"{name}-{task}" in pictures
        ],
        "hardware": tables.distinct(table["hardware"] + ", " + table["system"]),
        "versions": versions(records),
        "commits": commits(records),
        "cost": cost(table),
        "again": again,
        "tables": [
            {
                "title": task_title(str(task)),
                "verdict": verdict(runs),
                "rows": markdown(rows.measured(runs)),
            }
            for task, runs in groups
        ],
        "runs": markdown(every_run(table)),
    }


def task_title(task: str) -> str:
    """A task as a heading."""
    return tables.TITLES.get(task, task.capitalize())


def markdown(table: pd.DataFrame) -> str:
    """A table of text in Markdown."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )


def verdict(table: pd.DataFrame) -> str:
    """Which configurations solved the task, or which is the best where none can.

    Args:
        table: rows of `tables.run_table`, of one scale and task.
    """
    return solved(table) if tables.is_solvable(table) else best(table)


def best(table: pd.DataFrame) -> str:
    """The configuration with the best mean over seeds, on the validation samples.

    Of those that do not see ahead, if there are any.
    """
    table = table if table["sees_ahead"].all() else table[~table["sees_ahead"]]
    measure = measure_of(table["task"].iloc[0])
    means = [(measure.of(runs, "best").mean(), runs) for runs in tables.lines(table)]
    choose = max if measure.higher_is_better else min
    value, runs = choose(means, key=lambda pair: pair[0])
    place = f"{tables.label(runs)}, L = {runs['depth'].iloc[0]}"
    return f"**Best {measure.title}**: {value:.{measure.digits}f}, {place}."


def solved(table: pd.DataFrame) -> str:
    """Which configurations solved the task with every seed, with some, and with none."""
    table = table.assign(line=tables.line_names(table, "depth"))
    answers = {"yes": "Solved", "some": "Some seeds", "no": "Not solved"}
    found: dict[str, dict[str, list[str]]] = {answer: {} for answer in answers.values()}
    for runs in tables.lines(table):
        answer = answers.get(tables.solved_text(runs), answers["some"])
        depths = found[answer].setdefault(runs["line"].iloc[0], [])
        depths.append(str(runs["depth"].iloc[0]))
    return " ".join(
        f"**{answer}**: "
        + "; ".join(f"{name}, L = {', '.join(depths)}" for name, depths in names.items())
        + "."
        for answer, names in found.items()
        if names
    )


def every_run(table: pd.DataFrame) -> pd.DataFrame:
    """One line per run, as text, with the command that repeats it."""
    return pd.DataFrame(
        {
            "run": "`" + table["identifier"] + "`",
            "task": table["task"],
            "configuration": [tables.label(runs) for _, runs in table.groupby(table.index)],
            "L": table["depth"],
            "M": table["channels"],
            "seed": table["seed"],
            "best on validation": [best_text(run) for run in table.to_dict("records")],
            "samples": table["samples"].map(tables.people),
            "outcome": table["outcome"],
            "finished": table["finished"].map(lambda when: f"{when:%Y-%m-%d %H:%M} UTC"),
            "command": "`" + table["command"] + "`",
        }
    ).astype(str)


def best_text(run: Mapping[Hashable, Any]) -> str:
    """What a run was measured by: "99.4%" or "1.264 bits per character"."""
    measure = measure_of(run["task"])
    value = measure.of(pd.DataFrame([run]), "best").iloc[0]
    return f"{value:.{measure.digits}f}{measure.unit or f' {measure.name}'}"


def cost(table: pd.DataFrame) -> str:
    """Number of runs and what they took altogether."""
    minutes = table[["wall_seconds", "device_seconds"]].sum() / 60
    runs = "run" if len(table) == 1 else "runs"
    return (
        f"{len(table)} {runs}, {minutes['wall_seconds']:.1f} minutes of wall time, "
        f"{minutes['device_seconds']:.1f} device minutes"
    )


def commits(records: Iterable[Record]) -> str:
    """The code that ran: abbreviated commits, and whether there were changes beside them."""
    return tables.distinct(
        (record.commit[:12] if record.commit else "outside of a repository")
        + (" with uncommitted changes" if record.modified else "")
        for record in records
    )


def versions(records: Iterable[Record]) -> str:
    """The packages that ran, one list for each different set of them."""
    return tables.distinct(
        ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))
        for record in records
    )
