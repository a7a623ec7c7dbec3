"""The page of Figure 6, made of what is stored; nothing is written."""

from collections.abc import Sequence

import jinja2
import pandas as pd

from tlstm.records import table as tables
from tlstm.records.memory_cells import MemoryCells
from tlstm.reporting.memory_cells import warnings
from tlstm.reporting.page import TEMPLATES, commits, markdown


def page(stored: Sequence[MemoryCells]) -> str:
    """The page, in Markdown: scales from the paper's down, smoke last.

    Args:
        stored: of one scale and task each, at least one.
    """
    names = sorted({cells.record.scale for cells in stored}, key=tables.scale_order)
    scales = [(name, [cells for cells in stored if cells.record.scale == name]) for name in names]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    return environment.get_template("memory_cells.md.jinja").render(
        scales=[
            {"name": name, "pictures": [_picture(cells) for cells in group], "runs": _runs(group)}
            for name, group in scales
        ]
    )


def _picture(cells: MemoryCells) -> dict[str, str]:
    record = cells.record
    title = tables.TITLES.get(record.task, record.task.capitalize())
    return {"file": f"{cells.name}.svg", "title": title, "warnings": ". ".join(warnings(cells))}


def _runs(group: Sequence[MemoryCells]) -> str:
    """A line for each run, with the command that repeats it."""
    table = pd.concat([tables.run_table([cells.record]) for cells in group], ignore_index=True)
    shown = {
        "task": table["task_size"],
        "configuration": table["label"],
        "L": table["depth"],
        "M": table["channels"],
        "seed": table["seed"],
        "samples": table["samples"].map(tables.people),
        "test accuracy (%)": (100 * table["test_accuracy"]).map("{:.1f}".format),
        "run": "`" + table["identifier"] + "`",
        "commit": [commits([cells.record]) for cells in group],
        "command": "`" + table["command"] + "`",
    }
    return markdown(pd.DataFrame(shown).astype(str))
