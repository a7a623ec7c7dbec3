"""The common look and parts of the pictures of runs; each is of one scale and one task.

The pictures themselves are in `learning_curves`, `sweeps` and `settings`: pure functions from
records to matplotlib's figures; nothing is read or written, and no state of matplotlib is changed.
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
from tlstm.records.models import MODELS
from tlstm.records.schema import Record
from tlstm.records.store import latest
from tlstm.reporting import rows

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
NOTHING: Mapping[str, str] = {}
PEOPLE = FuncFormatter(lambda value, _: tables.people(value))
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
    """Return the settings to make and save figures under, whatever the user's own."""
    return matplotlib.style.context(["default", SETTINGS])


def one_picture(
    records: Sequence[Record], along: str, times: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the runs of one picture, the latest of each, with the name of their `line`.

    Args:
        records: of one scale and one task.
        along: "depth" or "channels".
        times: rows of `rows.benchmark_times`.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    kinds = {(record.scale, record.task) for record in records}
    if len(kinds) != 1:
        raise ValueError(f"records must be of one scale and one task, got {sorted(kinds)}")
    table = rows.run_table(latest(records), times=times)
    return table.assign(line=tables.line_names(table, along))


def line_styles(table: pd.DataFrame) -> dict[str, Look]:
    """Return colour, line and marker of every line, in the order of the legend."""
    styles: dict[str, Look] = {}
    for model, runs in table.groupby("model", sort=False):
        unknown = len({look["color"] for look in styles.values()} - KNOWN_COLORS)
        look = STYLES.get(str(model), OTHER_STYLES[unknown % len(OTHER_STYLES)])
        for place, line in enumerate(dict.fromkeys(runs["line"])):
            styles[line] = look | {"linestyle": (0, (1, place))} if place else look
    return styles


def make_panels(count: int) -> tuple[Figure, list[Axes], Axes]:
    """Make panels in at most two rows, the last on the right, and a place for the legend.

    The legend goes below the last panel where that is free, else into a column of its own.
    """
    lines = 1 if count < 3 else 2
    columns = -(-count // lines)
    free = lines * columns - count
    widths = [1.0] * columns + ([] if free else [0.7])
    figure = Figure(figsize=(3.3 * sum(widths), 2.7 * lines), layout="constrained")
    grid = figure.add_gridspec(lines, len(widths), width_ratios=widths)
    places = [divmod(place, columns) for place in range(lines * columns)]
    last, legend = (places.pop(columns - 1), places.pop()) if free else (places.pop(), None)
    panels = [figure.add_subplot(grid[place]) for place in (*places, last)]
    beside = figure.add_subplot(grid[legend] if legend else grid[:, -1])
    beside.set_axis_off()
    return figure, panels, beside


def draw_runtime(panel: Axes, table: pd.DataFrame, along: str, styles: Mapping[str, Look]) -> None:
    """Draw the runtime of the runs that are timed on one machine."""
    runs, others = rows.timed(table)
    machine = textwrap.shorten(runs["hardware"].iloc[0], 20, placeholder="...")
    where = f" on {machine}" if others else ""
    panel.set_title(f"runtime{where}{' (benchmark)' if runs['benchmark'].all() else ''}")
    panel.set_ylabel("µs per timestep of a batch")
    draw_means(panel, runs["microseconds"], runs, along, styles)
    panel.set_ylim(bottom=0)


def draw_means(
    panel: Axes, values: pd.Series, table: pd.DataFrame, along: str, styles: Mapping[str, Look]
) -> None:
    """Draw mean and range over seeds against L or M."""
    for line, runs in table.groupby("line", sort=False):
        summary = values[runs.index].groupby(runs[along]).agg(["mean", "min", "max"])
        bars = [summary["mean"] - summary["min"], summary["max"] - summary["mean"]]
        bars = [bar.clip(lower=0) for bar in bars]  # a mean of equal values may be rounded
        look = styles[str(line)] | {"capsize": 2, "elinewidth": 0.8, "label": str(line)}
        panel.errorbar(summary.index, summary["mean"], yerr=bars, **look)
    panel.set_xlabel({"depth": "depth L", "channels": "channels M"}[along])
    panel.set_xticks(sorted(set(table[along])))


def draw_legend(
    panel: Axes, styles: Mapping[str, Look], published: Mapping[str, str] = NOTHING
) -> None:
    """Draw every line, and the published marks: their models, and what is said of them."""
    entries = [Line2D([], [], label=line, **look) for line, look in styles.items()]
    entries += [published_entry(model, label) for model, label in published.items()]
    size = 9.5 if len(entries) <= 10 else 7
    panel.legend(handles=entries, loc="center", handlelength=3.2, fontsize=size)


def published_entry(model: str, label: str) -> Line2D:
    """Return the legend's entry of a model's published marks."""
    star: Look = {"marker": "*", "markersize": 10, "markeredgecolor": "black"}
    return Line2D([], [], label=label, linestyle="", color=published_color(model), **star)


def published_color(model: str) -> str:
    """Return the colour of a published model: that of ours where there is one."""
    name = {"Stacked LSTM": "sLSTM"}.get(model, model)
    known = [style["color"] for key, style in STYLES.items() if MODELS[key].label == name]
    return str(known[0]) if known else GREY


def draw_heading(figure: Figure, table: pd.DataFrame, seeds: str, published: bool) -> None:
    """Write what was run, on what, and how large; in red where it is not what the paper ran.

    Args:
        figure: to write on.
        table: the runs, with their `line`.
        seeds: how many there are, and how they are drawn.
        published: whether published numbers are drawn.
    """
    scale, width = table["scale"].iloc[0], figure.get_size_inches()[0]
    sizes = tables.sizes(table)
    facts = f"{scale} scale, on {tables.distinct(table['hardware'])}, {seeds}"
    warnings = _warnings(table, sizes, published)
    parts: list[tuple[str, float, Look]] = [
        (sizes[:1].upper() + sizes[1:], 7.5, {"size": 13, "weight": "bold"}),
        (facts, 14, {"color": "#555555"}),
        *((warning, 11, {"color": RED, "weight": "bold"}) for warning in warnings),
    ]
    lines = [(line, look) for text, per, look in parts for line in _wrapped(text, int(per * width))]
    write_above(figure, lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines, but not within "M = 24"."""
    together = text.replace(" = ", "\xa0=\xa0")
    return [line.replace("\xa0", " ") for line in textwrap.wrap(together, width)]


def seeds_in_words(table: pd.DataFrame, explanation: str) -> str:
    """Return the number of seeds of the lines, and which lines have more where they differ.

    Args:
        table: the runs, with their `line`.
        explanation: of how several seeds are drawn.
    """
    seeds = table.groupby(["line", "depth"], sort=False)["seed"].nunique()
    if seeds.max() == 1:
        return "one seed"
    numbers = sorted(set(seeds))
    if len(numbers) == 1:
        return f"{numbers[0]} seeds: {explanation}"
    most = seeds[seeds == numbers[-1]].reset_index()
    named = "; ".join(
        f"{line}, L = {tables.distinct(depths, ', ')}"
        for line, depths in most.groupby("line", sort=False)["depth"]
    )
    named = named if most["line"].nunique() < 3 else "some lines"
    fewer = "one seed" if numbers[:-1] == [1] else f"{numbers[0]} to {numbers[-2]} seeds"
    return f"{fewer}, {numbers[-1]} of {named}: {explanation}"


def _warnings(table: pd.DataFrame, sizes: str, published: bool) -> Iterator[str]:
    """Yield what a reader must not take for the paper's: another scale, other data."""
    scale, task = table["scale"].iloc[0], table["task"].iloc[0]
    if scale != "paper":
        marks = "; published marks are for the paper's sizes" if published else ""
        yield f"{scale.upper()} SCALE: {sizes}, not the paper's size{marks}"
    if task in STANDS_IN_FOR:
        yield f"OTHER DATA: {task}, not the paper's {STANDS_IN_FOR[task]}"
    if table["sees_ahead"].any():
        yield "3D tLSTM+LN AT L > 1 predicts characters that it has seen: no measure of prediction"


def write_above(figure: Figure, lines: Sequence[tuple[str, Look]]) -> None:
    """Make the figure taller by some rows of text and write them there."""
    width, height = figure.get_size_inches()
    taller = height + 0.22 * len(lines) + 0.2
    figure.set_size_inches(width, taller)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, height / taller))
    for place, (text, look) in enumerate(lines):
        above = 1 - (0.2 + 0.22 * place) / taller
        figure.text(0.012, above, text, va="center", **{"size": 9, **look})
