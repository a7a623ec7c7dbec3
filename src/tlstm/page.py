"""The page of an experiment: what was run, at what cost, and how it compares.

Everything here is text made of records and of the published numbers; nothing is written.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from tlstm import tables
from tlstm.record import Record

TEMPLATES = Path(__file__).parent / "templates"


def page(records: Sequence[Record], published: pd.DataFrame, title: str, command: str) -> str:
    """The page, in Markdown: scales from the paper's down, smoke last.

    Args:
        records: of one experiment, each run once.
        published: the rows of published.csv; the page shows those of the tasks that were run.
        title: of the page.
        command: makes the records.
    """
    names = sorted({record.scale for record in records}, key=tables.scale_order)
    scales = [
        _scale([record for record in records if record.scale == name], published) for name in names
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    return environment.get_template("results.md.jinja").render(
        title=title,
        experiment=records[0].experiment,
        scales=scales,
        command=command,
        one_run=tables.run_table(records)["command"].iloc[0],
    )


def _scale(records: Sequence[Record], published: pd.DataFrame) -> dict[str, object]:
    """What the page says about one scale."""
    table = tables.run_table(records)
    name = table["scale"].iloc[0]
    groups = list(table.groupby("task"))
    return {
        "name": name,
        "sizes": tables.sizes(table),
        "pictures": [
            {"file": f"{name}-{task}.svg", "alt": f"{tables.sizes(runs)}, {name} scale"}
            for task, runs in groups
        ],
        "hardware": tables.distinct(table["hardware"] + ", " + table["system"]),
        "versions": versions(records),
        "commits": commits(records),
        "cost": cost(table),
        "tables": [
            {
                "title": tables.TITLES.get(str(task), str(task).capitalize()),
                "verdict": verdict(runs),
                "rows": markdown(
                    tables.comparison(runs, tables.published_rows(published, str(task)))
                ),
            }
            for task, runs in groups
        ],
        "runs": markdown(every_run(table)),
    }


def markdown(table: pd.DataFrame) -> str:
    """A table of text in Markdown."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )


def verdict(table: pd.DataFrame) -> str:
    """Which configurations solved the task with every seed, with some, and with none."""
    table = table.assign(line=tables.line_names(table, "depth"))
    answers = {"yes": "Solved", "some": "Some seeds", "no": "Not solved"}
    solved: dict[str, dict[str, list[str]]] = {answer: {} for answer in answers.values()}
    for runs in tables.lines(table):
        answer = answers.get(tables.solved_text(runs), answers["some"])
        depths = solved[answer].setdefault(runs["line"].iloc[0], [])
        depths.append(str(runs["depth"].iloc[0]))
    return " ".join(
        f"**{answer}**: "
        + "; ".join(f"{name}, L = {', '.join(depths)}" for name, depths in names.items())
        + "."
        for answer, names in solved.items()
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
            "accuracy (%)": [
                tables.spread(runs) for _, runs in (100 * table["best_accuracy"]).groupby(level=0)
            ],
            "samples": table["samples"].map(tables.people),
            "outcome": table["outcome"],
            "finished": table["finished"].map(lambda when: f"{when:%Y-%m-%d %H:%M} UTC"),
            "command": "`" + table["command"] + "`",
        }
    ).astype(str)


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
