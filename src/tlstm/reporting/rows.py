"""The rows of the tables: measured ones of the runs' records, published ones of published.csv.

Pure functions to tables of text; a dash is a number that is not known.
"""

from collections.abc import Hashable, Mapping

import pandas as pd

from tlstm.records.measures import STANDS_IN_FOR, Measure, measure_of
from tlstm.records.table import (
    UNKNOWN,
    distinct,
    is_solvable,
    label,
    lines,
    number,
    people,
    percent,
    runtime_text,
    samples_text,
    solved_text,
    spread,
)

PUBLISHED_THRESHOLD = 0.99  # the accuracy that counts as solved in Table 2


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each group of runs that differ in nothing but their seed.

    Args:
        table: rows of `tables.run_table`, at least one; of one scale and task, or of several
            tasks of one measure and threshold.
    """
    shown = [
        measured_row(runs)
        for _, group in table.groupby(["scale", "task"], sort=False)
        for runs in lines(group)
    ]
    return pd.DataFrame(shown).fillna(UNKNOWN)


def measured_row(runs: pd.DataFrame) -> dict[str, str]:
    """One row of `measured`, with the scale and the data that it is of."""
    first, measure = runs.iloc[0], measure_of(runs["task"].iloc[0])
    return {
        "configuration": label(runs),
        "scale and data": where(first["scale"], first["task"]),
        "L": str(first["depth"]),
        "M": str(first["channels"]),
        "parameters": people(first["parameters"]),
        "seeds": ", ".join(str(seed) for seed in runs["seed"]),
        "samples": people(runs["samples"].mean()),
        measure.title: spread(measure.of(runs, "best"), measure.digits),
        f"test {measure.title}": spread(measure.of(runs, "test"), measure.digits),
        **(_solving(runs) if is_solvable(runs) else {}),
        "ms per timestep": runtime_text(runs),
        "device minutes per run": f"{runs['device_seconds'].mean() / 60:.1f}",
        "device": distinct(runs["hardware"]),
        "commit": distinct(map(commit_text, runs["commit"].fillna(UNKNOWN), runs["modified"])),
    }


def where(scale: str, task: str) -> str:
    """A scale, and the data where they stand in for the task's own: "smoke, digits"."""
    return f"{scale}, {task}" if task in STANDS_IN_FOR else scale


def commit_text(commit: str, modified: bool) -> str:
    """An abbreviated commit, and whether there were changes beside it."""
    return f"{commit[:7]}, changed" if modified else commit[:7]


def _solving(runs: pd.DataFrame) -> dict[str, str]:
    threshold = percent(float(runs["threshold"].iloc[0]))
    return {f"samples to {threshold}": samples_text(runs), "solved": solved_text(runs)}


def published(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of published.csv, at least one, about one task; the numbers are the file's own."""
    measure = measure_of(rows["task"].iloc[0])
    shown = [published_row(row, measure) for row in rows.to_dict("records")]
    return pd.DataFrame(shown).replace("", UNKNOWN)


def published_row(row: Mapping[Hashable, str], measure: Measure) -> dict[str, str]:
    """One row of `published`; where it has samples, they are those to 99% or, if not, in all."""
    shown = {
        "configuration": f"**{row['model']}, published**",
        "L": row["depth"],
        "M": row["channels"],
        "parameters": row["parameters"],
        measure.title: row["value"],
    }
    if row["samples"]:
        solved = number(row["value"]) >= 100 * PUBLISHED_THRESHOLD
        shown |= {
            f"samples to {percent(PUBLISHED_THRESHOLD)}": row["samples"]
            if solved
            else f"not within {row['samples']}",
            "solved": "yes" if solved else "no",
        }
    return shown | {"source": row["source"]}
