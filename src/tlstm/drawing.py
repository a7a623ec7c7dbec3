"""What the pictures look like: learning curves, runtime and sweeps as matplotlib figures.

Pure functions from records to figures; nothing is read or written, and no state of matplotlib
is changed. One figure is of one scale and one task.
"""

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tlstm import tables
from tlstm.record import CurvePoint, Record
from tlstm.results import latest

Look = dict[str, Any]
Numbers = npt.NDArray[np.float64]

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


class MeanCurve(NamedTuple):
    """Accuracy over several seeds at the same numbers of training samples; fractions."""

    samples: Numbers
    mean: Numbers
    lowest: Numbers
    highest: Numbers


def mean_curve(curves: Sequence[Sequence[CurvePoint]]) -> MeanCurve:
    """Mean and range of curves at every point of any of them, linear in between.

    It starts where the last of them starts. A run that stopped because it was solved counts
    with its last accuracy from then on, so that the slower seeds stay in the mean.

    Args:
        curves: one for each seed, each with at least one point, in the order of their samples.
    """
    places = [np.array([point.samples for point in curve], dtype=float) for curve in curves]
    heights = [np.array([point.accuracy for point in curve]) for curve in curves]
    samples = np.unique(np.concatenate(places))
    samples = samples[samples >= max(place[0] for place in places)]
    values = np.stack([np.interp(samples, *pair) for pair in zip(places, heights, strict=True)])
    return MeanCurve(samples, values.mean(0), values.min(0), values.max(0))


def style() -> AbstractContextManager[None]:
    """The settings that figures are made and must be saved under, whatever the user's own."""
    return matplotlib.style.context(["default", SETTINGS])


def figure4(records: Sequence[Record], published: pd.DataFrame) -> Figure:
    """Figure 4 for one task: accuracy against training samples at every depth, and runtime.

    Args:
        records: of one scale and one task; the latest of every run is drawn.
        published: the rows of published.csv.

    Returns:
        A figure with a panel per depth, one for the runtime and, last, the legend's.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    table = _one_picture(records, "depth")
    curves = {record.identifier: _drawable(record.curve) for record in latest(records)}
    marks = tables.published_marks(published, records[0].task)
    depths = sorted(set(table["depth"]))
    styles = _styles(table)
    with style():
        figure, panels, legend = _panels(len(depths) + 1)
        for panel, depth in zip(panels[:-1], depths, strict=True):
            panel.set_title(f"L = {depth}")
            _draw_curves(panel, table[table["depth"] == depth], curves, styles)
            _draw_published(panel, [mark for mark in marks if mark.depth in (None, depth)], styles)
        _accuracy_axes(panels[:-1], float(table["threshold"].iloc[0]))
        _draw_runtime(panels[-1], table, "depth", styles)
        _draw_legend(legend, styles, bool(marks))
        _draw_heading(figure, table, "lines are means, bands the range", bool(marks))
    return figure


def sweep_figure(records: Sequence[Record], along: str) -> Figure:
    """Accuracy, samples to the threshold and runtime against L or M, one line per model.

    Args:
        records: of one scale and one task; the latest of every run is drawn.
        along: "depth" or "channels".

    Returns:
        A figure with three panels and, last, the legend's.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    table = _one_picture(records, along)
    threshold = float(table["threshold"].iloc[0])
    styles = _styles(table)
    with style():
        figure, panels, legend = _panels(3)
        panels[0].set_title("best accuracy")
        panels[0].set_ylabel("accuracy (%)")
        _draw_means(panels[0], 100 * table["best_accuracy"], table, along, styles)
        _draw_samples(panels[1], table, along, styles, threshold)
        _draw_runtime(panels[2], table, along, styles)
        _draw_legend(legend, styles, False)
        _draw_heading(figure, table, "points are means, bars the range", False)
    return figure


def _one_picture(records: Sequence[Record], along: str) -> pd.DataFrame:
    kinds = {(record.scale, record.task) for record in records}
    if len(kinds) != 1:
        raise ValueError(f"records must be of one scale and one task, got {sorted(kinds)}")
    table = tables.run_table(latest(records))
    return table.assign(line=tables.line_names(table, along))


def _drawable(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """What a logarithmic axis can show."""
    return [point for point in curve if point.samples > 0]


def _styles(table: pd.DataFrame) -> dict[str, Look]:
    """Colour, line and marker of every line, in the order of the legend."""
    styles: dict[str, Look] = {}
    for model, runs in table.groupby("model", sort=False):
        unknown = len({look["color"] for look in styles.values()} - KNOWN_COLORS)
        look = STYLES.get(str(model), OTHER_STYLES[unknown % len(OTHER_STYLES)])
        for place, line in enumerate(dict.fromkeys(runs["line"])):
            styles[line] = look | {"linestyle": (0, (1, place))} if place else look
    return styles


def _panels(count: int) -> tuple[Figure, list[Axes], Axes]:
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


def _draw_curves(
    panel: Axes,
    runs: pd.DataFrame,
    curves: Mapping[str, Sequence[CurvePoint]],
    styles: Mapping[str, Look],
) -> None:
    for line, group in runs.groupby("line", sort=False):
        shown = [curves[identifier] for identifier in group["identifier"]]
        shown = [curve for curve in shown if curve]
        if shown:
            _draw_curve(panel, str(line), mean_curve(shown), styles[str(line)])


def _draw_curve(panel: Axes, line: str, curve: MeanCurve, style: Look) -> None:
    percent = 100 * curve.mean
    panel.plot(curve.samples, percent, label=line, markevery=0.15, alpha=0.9, **style)
    if (curve.lowest < curve.highest).any():
        band = 100 * curve.lowest, 100 * curve.highest
        panel.fill_between(curve.samples, *band, color=style["color"], alpha=0.16, linewidth=0)


def _draw_published(
    panel: Axes, marks: Sequence[tables.PublishedMark], styles: Mapping[str, Look]
) -> None:
    """Stars in the colour of their line; grey and named where there is none to compare with."""
    for mark in marks:
        line = styles.get(mark.model, {"color": GREY})
        panel.scatter(mark.samples, mark.accuracy, color=line["color"], zorder=5, **STAR)
    named = sorted((mark for mark in marks if mark.model not in styles), key=lambda m: m.samples)
    for number, mark in enumerate(named):
        # In turn above and below, so that neighbours leave each other room
        offset: Look = {"xytext": (6, -14 if number % 2 else 7), "textcoords": "offset points"}
        place = mark.samples, mark.accuracy
        panel.annotate(mark.model, place, fontsize=7, color="#6E6E6E", ha="right", **offset)


def _accuracy_axes(panels: Sequence[Axes], threshold: float) -> None:
    """The same logarithmic samples and per cent for every panel, and a line to pass."""
    for panel in panels:
        panel.sharex(panels[0])
        panel.sharey(panels[0])
        panel.axhline(100 * threshold, color=GREY, linewidth=0.8, linestyle=":", label="_solved")
        panel.set_xlabel("training samples")
        place = panel.get_subplotspec()
        if place is not None and place.is_first_col():
            panel.set_ylabel("accuracy of the answer (%)")
        else:
            panel.tick_params(labelleft=False)
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_formatter(PEOPLE)
    panels[0].xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylim(-3, 109)


def _draw_runtime(panel: Axes, table: pd.DataFrame, along: str, styles: Mapping[str, Look]) -> None:
    """Runtime on the hardware with the most runs: two machines are never in one line."""
    hardware = table["hardware"].mode().iloc[0]
    runs = table[table["hardware"] == hardware]
    machine = textwrap.shorten(hardware, 20, placeholder="...")
    panel.set_title("runtime" if len(runs) == len(table) else f"runtime on {machine}")
    panel.set_ylabel("ms per timestep")
    _draw_means(panel, runs["milliseconds_per_timestep"], runs, along, styles)
    panel.set_ylim(bottom=0)


def _draw_samples(
    panel: Axes,
    table: pd.DataFrame,
    along: str,
    styles: Mapping[str, Look],
    threshold: float,
) -> None:
    """Samples to the threshold; runs that did not pass it are hollow, where they ended."""
    panel.set_title(f"samples to {tables.percent(threshold)} (hollow: not within)")
    panel.set_ylabel("training samples")
    passed = table["samples_to_threshold"].astype(float)
    ends = passed.fillna(table["samples"]).clip(lower=1)
    panel.set_yscale("log")
    panel.set_ylim(ends.min() / 1.5, ends.max() * 1.5)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(PEOPLE)
    panel.yaxis.set_minor_formatter(NullFormatter())
    _draw_means(panel, passed, table, along, styles)
    for line, runs in table[passed.isna()].groupby("line", sort=False):
        look = styles[str(line)] | {"linestyle": "", "markerfacecolor": "white"}
        panel.plot(runs[along], runs["samples"], label="_not within", **look)


def _draw_means(
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
        look = styles[str(line)] | {"capsize": 2, "elinewidth": 0.8, "label": str(line)}
        panel.errorbar(summary.index, summary["mean"], yerr=bars, **look)
    panel.set_xlabel({"depth": "depth L", "channels": "channels M"}[along])
    panel.set_xticks(sorted(set(table[along])))


def _draw_legend(panel: Axes, styles: Mapping[str, Look], published: bool) -> None:
    entries = [Line2D([], [], label=line, **style) for line, style in styles.items()]
    if published:
        star: Look = {"marker": "*", "markersize": 10, "markeredgecolor": "black", "color": GREY}
        entries.append(Line2D([], [], label=PUBLISHED, linestyle="", **star))
    size = 9.5 if len(entries) <= 10 else 7
    panel.legend(handles=entries, loc="center", handlelength=3.2, fontsize=size)


def _draw_heading(figure: Figure, table: pd.DataFrame, explanation: str, published: bool) -> None:
    """What was run, on what, and how large; in red where it is not what the paper ran."""
    scale, width = table["scale"].iloc[0], figure.get_size_inches()[0]
    sizes, seeds = tables.sizes(table), sorted(set(table["seed"]))
    facts = f"{scale} scale, on {tables.distinct(table['hardware'])}, "
    facts += (
        f"seeds {tables.distinct(seeds, ', ')}: {explanation}"
        if len(seeds) > 1
        else f"one seed ({seeds[0]})"
    )
    rows: list[tuple[str, Look]] = [(sizes[:1].upper() + sizes[1:], {"size": 13, "weight": "bold"})]
    rows += [(line, {"color": "#555555"}) for line in textwrap.wrap(facts, int(14 * width))]
    if scale != "paper":
        warning = f"{scale.upper()} SCALE: {sizes}, not the paper's size"
        warning += "; published marks are for the paper's sizes" if published else ""
        rows += [
            (line, {"color": RED, "weight": "bold"})
            for line in textwrap.wrap(warning, int(11 * width))
        ]
    write_above(figure, rows)


def write_above(figure: Figure, rows: Sequence[tuple[str, Look]]) -> None:
    """Makes the figure taller by some rows of text and writes them there."""
    width, height = figure.get_size_inches()
    taller = height + 0.22 * len(rows) + 0.2
    figure.set_size_inches(width, taller)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, height / taller))
    for place, (text, look) in enumerate(rows):
        above = 1 - (0.2 + 0.22 * place) / taller
        figure.text(0.012, above, text, va="center", **{"size": 9, **look})
