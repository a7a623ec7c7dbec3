"""The picture of runs that differ in their settings: in how many samples they learn, or how well.

A pure function from records to a figure, as in `tlstm.reporting.style`.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tlstm.records import table as tables
from tlstm.records.schema import Record
from tlstm.reporting.style import (
    PEOPLE,
    STAR,
    Look,
    draw_heading,
    line_styles,
    one_picture,
    published_color,
    published_entry,
    style,
)

WIDTH, LANE = 8.75, 0.17  # inches; at 160 dots an inch the picture is 1,400 wide
AROUND = 0.75  # inches of a panel's axis and its title
ROW_CHARACTERS = 46
GAP = 0.5  # between rows, in lanes
SHADE = "#F4F4F4"
UNSOLVED_FACTOR = 10  # in the order of rows: what was not solved comes after what was
USUAL = "the reproduction's settings"


class Lane(NamedTuple):
    """The place where the runs of an L with some settings are drawn."""

    row: str
    depth: int


def settings_figure(records: Sequence[Record], published: pd.DataFrame) -> Figure:
    """Draw samples to the threshold and accuracies, a row for every choice of settings.

    In a row every L has a lane, and every seed is a point. Runs that passed the threshold are in
    the upper panel, by their samples, the others in the lower one, by their accuracy; a panel has
    the rows that it has points for. What takes the fewest samples is further up, below the
    reproduction's runs. Records and errors are those of `one_picture`.
    """
    table = one_picture(records, "depth")
    table = table.assign(row=table["choice"].replace("", USUAL), line=table["label"])
    table["depth"] = table["depth"].astype(int)
    looks = {label: _marker(look) for label, look in line_styles(table).items()}
    order, passed = _order(table), table["samples_to_threshold"].notna()
    ran = set(table["depth"][table["row"] == USUAL])
    marks = [m for m in tables.published_marks(published, records[0].task) if m.depth in ran]
    marks = marks if passed.any() else []
    parts = [
        (table[passed], _places(table[passed], order, [mark.depth or 0 for mark in marks])),
        (table[~passed], _places(table[~passed], order)),
    ]
    parts = [(runs, places) for runs, places in parts if places]
    heights = [AROUND + LANE * (max(places.values()) + 1) for _, places in parts]
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained")
        panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, (runs, places) in zip(panels, parts, strict=True):
            _draw_rows(panel, places)
            _draw_points(panel, runs, places, looks)
        for mark in marks:
            place = mark.samples, parts[0][1][Lane(USUAL, mark.depth or 0)]
            panels[0].scatter(*place, color=published_color(mark.model), zorder=1.5, **STAR)
        entries = [Line2D([], [], label=label, **look) for label, look in looks.items()]
        stars = dict.fromkeys(mark.model for mark in marks)
        entries += [published_entry(model, f"{model}, published") for model in stars]
        figure.legend(handles=entries, loc="outside lower center", ncols=5, fontsize=7.5)
        draw_heading(figure, table, "every seed is a point", bool(marks))
    return figure


def _order(table: pd.DataFrame) -> list[str]:
    """Return the rows from the top down: by the samples of the model with the most rows."""
    passed = table["samples_to_threshold"].astype(float)
    late = passed.fillna(UNSOLVED_FACTOR * table["samples"].max() * (2 - table["best_accuracy"]))
    most = table.groupby("label")["row"].nunique().idxmax()
    of_most = late[table["label"] == most].groupby(table["row"]).mean()
    means = late.groupby(table["row"]).mean().sort_values(kind="stable")
    return sorted(means.index, key=lambda row: (row != USUAL, of_most.get(row, math.inf)))


def _places(
    table: pd.DataFrame, order: Sequence[str], published: Sequence[int] = ()
) -> dict[Lane, float]:
    """Return the heights of the lanes that have points, in lanes from the bottom up."""
    there = {Lane(*lane) for lane in zip(table["row"], table["depth"], strict=True)}
    there |= {Lane(USUAL, depth) for depth in published}
    places: dict[Lane, float] = {}
    top = 0.0
    for row in reversed(order):
        within = sorted((lane for lane in there if lane.row == row), reverse=True)
        lines = len(textwrap.wrap(row, ROW_CHARACTERS))
        height = max(len(within), lines) + GAP if within else 0
        first = top + (height - len(within) + 1) / 2
        places |= {lane: first + place for place, lane in enumerate(within)}
        top += height
    return places


def _draw_rows(panel: Axes, places: Mapping[Lane, float]) -> None:
    """Draw the names of rows and lanes, and a shade behind every other row."""
    panel.set_yticks([*places.values()], [f"L = {lane.depth}" for lane in places], fontsize=7)
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    low = 0.0
    look: Look = {"ha": "right", "va": "center", "fontsize": 7.5, "annotation_clip": False}
    look |= {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    for number, row in enumerate(dict.fromkeys(lane.row for lane in places)):
        heights = [height for lane, height in places.items() if lane.row == row]
        middle = (min(heights) + max(heights)) / 2
        high = 2 * middle - low
        name = textwrap.fill(row, ROW_CHARACTERS)
        panel.annotate(name, (0, middle), (-36, 0), **look)
        if number % 2 == 0:
            panel.axhspan(low, high, color=SHADE, zorder=0)
        low = high
    panel.set_ylim(0, low)


def _draw_points(
    panel: Axes, table: pd.DataFrame, places: Mapping[Lane, float], looks: Mapping[str, Look]
) -> None:
    """Draw full points at the samples to the threshold, or hollow ones at the best accuracies."""
    passed = table["samples_to_threshold"].notna().any()
    if passed:
        threshold = tables.percent(float(table["threshold"].iloc[0]))
        panel.set_xlabel(f"training samples to {threshold}")
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(PEOPLE)
        panel.xaxis.set_minor_formatter(NullFormatter())
        values, fill = table["samples_to_threshold"].astype(float), {}
    else:
        which = " of runs that did not solve the task" if tables.is_solvable(table) else ""
        panel.set_xlabel(f"best validation accuracy (%){which}")
        values, fill = 100 * table["best_accuracy"], {"markerfacecolor": "white"}
    for (row, depth, label), runs in table.groupby(["row", "depth", "label"], sort=False):
        heights = [places[Lane(str(row), int(str(depth)))]] * len(runs)
        panel.plot(values[runs.index], heights, **(looks[str(label)] | fill))


def _marker(look: Look) -> Look:
    return {"marker": look["marker"], "color": look["color"], "linestyle": "", "alpha": 0.85}
