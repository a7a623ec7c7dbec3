"""The picture of runs that differ in their settings: samples until they are solved.

A pure function from records to a figure, as in `tlstm.reporting.drawing`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain, product

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tlstm import tables
from tlstm.record import Record
from tlstm.reporting.drawing import (
    GREY,
    PEOPLE,
    PUBLISHED,
    STAR,
    Look,
    draw_heading,
    one_picture,
    style,
)
from tlstm.results import latest

COLOR = "#0072B2"
ROW_CHARACTERS = 84
UNSOLVED_FACTOR = 10  # in the order of rows: what was not solved comes after what was
SIZES = ("model.depth", "model.core.depth", "model.core.tensor_size")  # every panel has its own
SOLVED: Look = {"marker": "o", "linestyle": "", "color": COLOR, "alpha": 0.85}
UNSOLVED: Look = SOLVED | {"markerfacecolor": "white"}


def settings_figure(records: Sequence[Record], published: pd.DataFrame) -> Figure:
    """Samples to the threshold, a row for every choice of settings, a panel for every model and L.

    Every seed is a point; one that did not pass the threshold is hollow, where it ended, beside
    its best accuracy. The first row names the settings that most runs have, every other row those
    in which it differs; what takes the fewest samples is further up.

    Args:
        records: of one scale and one task; the latest of every run is drawn.
        published: the rows of published.csv.

    Returns:
        A figure with a row of panels per L, a column per model.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    table = one_picture(records, "depth")
    names = row_names({record.identifier: record for record in latest(records)})
    table = table.assign(row=table["identifier"].map(names))
    rows = _in_order(table)
    depths, labels = sorted(set(table["depth"])), list(dict.fromkeys(table["label"]))
    marks = tables.published_marks(published, records[0].task)
    size = 5.2 + 3.1 * len(labels), 0.8 + (0.6 + 0.27 * len(rows)) * len(depths)
    with style():
        figure = Figure(figsize=size, layout="constrained")
        shape = len(depths), len(labels)
        panels = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).ravel().tolist()
        for panel, (depth, label) in zip(panels, product(depths, labels), strict=True):
            panel.set_title(f"{label}, L = {depth}", pad=12)
            _draw_runs(panel, table[(table["depth"] == depth) & (table["label"] == label)], rows)
            for mark in [mark for mark in marks if (mark.model, mark.depth) == (label, depth)]:
                panel.axvline(mark.samples, color=GREY, linewidth=0.8, linestyle=":")
                panel.scatter(mark.samples, len(rows) - 0.4, color=GREY, clip_on=False, **STAR)
        _axes(panels, rows, table)
        _legend(figure, table, bool(marks))
        draw_heading(figure, table, "every seed is a point", bool(marks))
    return figure


def row_names(records: Mapping[str, Record]) -> dict[str, str]:
    """What sets every run apart from most of the others, by the runs' identifiers.

    A setting counts where runs of the same model differ in it.
    """
    settings = {
        key: {name: str(value) for name, value in tables.settings(record).items()}
        for key, record in records.items()
    }
    names = dict.fromkeys(chain.from_iterable(settings.values()))
    values = pd.DataFrame(settings.values(), columns=[*names]).fillna("")
    several = values.groupby([record.label for record in records.values()]).nunique().max() > 1
    varied = [name for name in names if several[name] and name not in SIZES]
    usual = {name: values[name].mode()[0] for name in varied}
    return {key: _row_name(each, usual) for key, each in settings.items()}


def _row_name(settings: Mapping[str, str], usual: Mapping[str, str]) -> str:
    different = [name for name, value in usual.items() if settings.get(name, "") != value]
    named = tables.distinct(
        (f"{name.rpartition('.')[2]} {settings.get(name, '')}" for name in different or usual), ", "
    ).replace("_", " ")
    return f"but {named}" if different else named


def _in_order(table: pd.DataFrame) -> list[str]:
    """The rows from the bottom up."""
    passed = table["samples_to_threshold"].astype(float)
    late = passed.fillna(UNSOLVED_FACTOR * table["samples"] * (2 - table["best_accuracy"]))
    means = late.groupby(table["row"]).mean().sort_values(ascending=False, kind="stable")
    return sorted(means.index, key=lambda row: row.startswith("but "), reverse=True)


def _draw_runs(panel: Axes, table: pd.DataFrame, rows: Sequence[str]) -> None:
    places = table["row"].map({row: place for place, row in enumerate(rows)})
    solved = table["samples_to_threshold"].notna()
    panel.plot(table["samples_to_threshold"][solved].astype(float), places[solved], **SOLVED)
    panel.plot(table["samples"][~solved], places[~solved], **UNSOLVED)
    for row, runs in table[~solved].groupby("row"):
        best = ", ".join(f"{100 * value:.0f}%" for value in runs["best_accuracy"])
        place = runs["samples"].max(), rows.index(str(row))
        panel.annotate(best, place, (6, 0), textcoords="offset points", va="center", fontsize=7.5)


def _axes(panels: Sequence[Axes], rows: Sequence[str], table: pd.DataFrame) -> None:
    threshold = tables.percent(float(table["threshold"].iloc[0]))
    ends = table["samples_to_threshold"].astype(float).fillna(table["samples"])
    panels[0].set_yticks(range(len(rows)), [textwrap.fill(row, ROW_CHARACTERS) for row in rows])
    panels[0].set_ylim(-0.6, len(rows) - 0.4)
    panels[0].set_xscale("log")
    panels[0].set_xlim(ends.min() / 1.6, ends.max() * 2.2)
    for panel in panels:
        place = panel.get_subplotspec()
        if place is not None and place.is_last_row():
            panel.set_xlabel(f"training samples to {threshold}")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(PEOPLE)
        panel.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, table: pd.DataFrame, published: bool) -> None:
    threshold = tables.percent(float(table["threshold"].iloc[0]))
    entries = [
        Line2D([], [], label=f"passed {threshold}", **SOLVED),
        Line2D([], [], label="did not, and its best accuracy", **UNSOLVED),
    ]
    if published:
        star: Look = {"marker": "*", "markersize": 10, "markeredgecolor": "black", "color": GREY}
        entries.append(Line2D([], [], label=PUBLISHED, linestyle="", **star))
    figure.legend(handles=entries, loc="outside lower center", ncols=3, fontsize=8)
