"""What the pictures of runs look like and have in common; each is of one scale and one task.

The pictures themselves are in `learning_curves` and `sweep_drawing`: pure functions from records
to matplotlib's figures; nothing is read or written, and no state of matplotlib is changed.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from tlstm.records import table as tables
from tlstm.records.measures import STANDS_IN_FOR
from tlstm.records.schema import (
    Record,
)
from tlstm.records.store import (
    latest,
)
from tlstm.reporting import growth

Look = dict[str, Any]

# Okabe and Ito's colours, which colour-blind people can tell apart; black is the baseline.
STYLES: dict[str, Look] = {
    "slstm": {"color": "#000000", "linestyle": (0, (5, 1.5)), "marker": "s"},
    "tlstm_2d": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "tlstm_2d_no_memory_convolution": {"color": "#56B4E9", "linestyle": "--", "marker": "v"},
    "tlstm_2d_no_feedback": {"color": "#009E73", "linestyle": "-.", "marker": "P"},
    "tlstm_3d": {"color": "#E69F00", "linestyle": "-", "marker": "^"},
    "tlstm_3d_ln": {"color": "#CC79A7", "linestyle": "--", "marker": "D"},
    "tlstm_3d_cn": {"color": "#D55E00", "linestyle": "-", "marker": "X"},
}
OTHER_STYLES: list[Look] = [
    {"color": color, "linestyle": "-", "marker": marker}
    for color, marker in (("#7F7F7F", "<"), ("#8C564B", ">"), ("#4B0082", "h"), ("#BDB76B", "p"))
]
KNOWN_COLORS = {look["color"] for look in STYLES.values()}
GREY = "#A8A8A8"
RED = "#B00020"
STAR: Look = {"marker": "*", "s": 110, "edgecolor": "black", "linewidth": 0.6}
PEOPLE = FuncFormatter(lambda value, _: tables.people(value))
PUBLISHED = "published (Table 2, paper's size)"
SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.hashsalt": "tlstm",  # otherwise every drawing gets other identifiers
    "savefig.dpi": 160,
}


def style() -> AbstractContextManager[None]:
    """The settings that figures are made and must be saved under, whatever the user's own."""
    return matplotlib.style.context(["default", SETTINGS])


def one_picture(
    records: Sequence[Record], along: str, times: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The runs of one picture, the latest of each, with the name of their `line`.

    Args:
        records: of one scale and one task.
        along: "depth" or "channels".
        times: of the benchmark, as `growth.of_measurements` has them.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    kinds = {(record.scale, record.task) for record in records}
    if len(kinds) != 1:
        raise ValueError(f"records must be of one scale and one task, got {sorted(kinds)}")
    table = tables.run_table(latest(records))
    table = table.assign(line=tables.line_names(table, along))
    return growth.by_benchmark(table, growth.of_measurements([]) if times is None else times)


def line_styles(table: pd.DataFrame) -> dict[str, Look]:
    """Colour, line and marker of every line, in the order of the legend."""
    styles: dict[str, Look] = {}
    for model, runs in table.groupby("model", sort=False):
        unknown = len({look["color"] for look in styles.values()} - KNOWN_COLORS)
        look = STYLES.get(str(model), OTHER_STYLES[unknown % len(OTHER_STYLES)])
        for place, line in enumerate(dict.fromkeys(runs["line"])):
            styles[line] = look | {"linestyle": (0, (1, place))} if place else look
    return styles


def make_panels(count: int) -> tuple[Figure, list[Axes], Axes]:
    """Panels in at most two rows, the last of them on the right, and a place for the legend.

    The legend goes below the last panel where that is free, else into a column of its own.
    """
    rows = 1 if count < 3 else 2
    columns = -(-count // rows)
    free = rows * columns - count
    widths = [1.0] * columns + ([] if free else [0.7])
    figure = Figure(figsize=(3.3 * sum(widths), 2.7 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, len(widths), width_ratios=widths)
    places = [divmod(place, columns) for place in range(rows * columns)]
    last, legend = (places.pop(columns - 1), places.pop()) if free else (places.pop(), None)
    panels = [figure.add_subplot(grid[place]) for place in (*places, last)]
    beside = figure.add_subplot(grid[legend] if legend else grid[:, -1])
    beside.set_axis_off()
    return figure, panels, beside


def draw_runtime(panel: Axes, table: pd.DataFrame, along: str, styles: Mapping[str, Look]) -> None:
    """Runtime on the hardware with the most runs: two machines are never in one line.

    Only the benchmark's where there are some: runs may have shared their device.
    """
    timed = table[table["benchmark"]] if table["benchmark"].any() else table
    hardware = timed["hardware"].mode().iloc[0]
    runs = timed[timed["hardware"] == hardware]
    machine = textwrap.shorten(hardware, 20, placeholder="...")
    where = "" if len(runs) == len(timed) else f" on {machine}"
    panel.set_title(f"runtime{where}{' (benchmark)' if timed['benchmark'].all() else ''}")
    panel.set_ylabel("ms per timestep")
    draw_means(panel, runs["milliseconds_per_timestep"], runs, along, styles)
    panel.set_ylim(bottom=0)


def draw_means(
    panel: Axes,
    values: pd.Series,
    table: pd.DataFrame,
    along: str,
    styles: Mapping[str, Look],
) -> None:
    """Mean and range over seeds against L or M."""
    for line, runs in table.groupby("line", sort=False):
        summary = values[runs.index].groupby(runs[along]).agg(["mean", "min", "max"])
        bars = [summary["mean"] - summary["min"], summary["max"] - summary["mean"]]
        bars = [bar.clip(lower=0) for bar in bars]  # a mean of equal values may be rounded
        look = styles[str(line)] | {"capsize": 2, "elinewidth": 0.8, "label": str(line)}
        panel.errorbar(summary.index, summary["mean"], yerr=bars, **look)
    panel.set_xlabel({"depth": "depth L", "channels": "channels M"}[along])
    panel.set_xticks(sorted(set(table[along])))


def draw_legend(panel: Axes, styles: Mapping[str, Look], published: bool) -> None:
    """Every line and, where they are shown, the published marks."""
    entries = [Line2D([], [], label=line, **style) for line, style in styles.items()]
    if published:
        star: Look = {"marker": "*", "markersize": 10, "markeredgecolor": "black", "color": GREY}
        entries.append(Line2D([], [], label=PUBLISHED, linestyle="", **star))
    size = 9.5 if len(entries) <= 10 else 7
    panel.legend(handles=entries, loc="center", handlelength=3.2, fontsize=size)


def draw_heading(figure: Figure, table: pd.DataFrame, explanation: str, published: bool) -> None:
    """What was run, on what, and how large; in red where it is not what the paper ran."""
    scale, width = table["scale"].iloc[0], figure.get_size_inches()[0]
    sizes, seeds = tables.sizes(table), sorted(set(table["seed"]))
    facts = f"{scale} scale, on {tables.distinct(table['hardware'])}, "
    facts += (
        f"seeds {tables.distinct(seeds, ', ')}: {explanation}"
        if len(seeds) > 1
        else f"one seed ({seeds[0]})"
    )
    title = textwrap.wrap(sizes[:1].upper() + sizes[1:], int(7.5 * width))
    rows: list[tuple[str, Look]] = [(line, {"size": 13, "weight": "bold"}) for line in title]
    rows += [(line, {"color": "#555555"}) for line in textwrap.wrap(facts, int(14 * width))]
    rows += [
        (line, {"color": RED, "weight": "bold"})
        for warning in _warnings(table, sizes, published)
        for line in textwrap.wrap(warning, int(11 * width))
    ]
    write_above(figure, rows)


def _warnings(table: pd.DataFrame, sizes: str, published: bool) -> Iterator[str]:
    """What a reader must not take for the paper's: another scale, other data."""
    scale, task = table["scale"].iloc[0], table["task"].iloc[0]
    if scale != "paper":
        marks = "; published marks are for the paper's sizes" if published else ""
        yield f"{scale.upper()} SCALE: {sizes}, not the paper's size{marks}"
    if task in STANDS_IN_FOR:
        yield f"OTHER DATA: {task}, not the paper's {STANDS_IN_FOR[task]}"
    if table["sees_ahead"].any():
        yield "3D tLSTM+LN AT L > 1 predicts characters that it has seen: no measure of prediction"


def write_above(figure: Figure, rows: Sequence[tuple[str, Look]]) -> None:
    """Makes the figure taller by some rows of text and writes them there."""
    width, height = figure.get_size_inches()
    taller = height + 0.22 * len(rows) + 0.2
    figure.set_size_inches(width, taller)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, height / taller))
    for place, (text, look) in enumerate(rows):
        above = 1 - (0.2 + 0.22 * place) / taller
        figure.text(0.012, above, text, va="center", **{"size": 9, **look})
