"""The picture of runs that differ in their settings: how good they are, and in how many samples.

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
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from tlstm.records import table as tables
from tlstm.records.schema import Record
from tlstm.reporting.rows import without_budget
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
ROW_CHARACTERS = 46
NARROW = 0.4  # of a panel with few points, of the other's width
GAP = 0.5  # between rows, in lanes
SHADE = "#F4F4F4"
UNSOLVED_FACTOR = 10  # in the order of rows: what was not solved comes after what was
USUAL = "the reproduction's settings"


class Lane(NamedTuple):
    """The place where the runs of an L with some settings are drawn."""

    row: str
    depth: int


def settings_figure(records: Sequence[Record], published: pd.DataFrame) -> Figure:
    """Draw accuracies and samples to the threshold, a row for every choice of settings.

    In a row every L has a lane, and every seed is a point. Runs that passed the threshold are in
    the panel of samples, the others in the panel of accuracies. The first row has the
    reproduction's runs; what takes the fewest samples is further up.

    Args:
        records: of one scale and one task; the latest of every run is drawn.
        published: the rows of published.csv.

    Returns:
        A figure with a panel of accuracies, and one of samples where a run passed the threshold.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    table = one_picture(records, "depth")
    names = [without_budget(variant) or USUAL for variant in table["variant"]]
    table = table.assign(row=names, line=table["label"])
    solved = table["samples_to_threshold"].notna()
    looks = {label: _marker(look) for label, look in line_styles(table).items()}
    places, ends = _places(_lanes(table))
    top = max(high for _, high in ends.values())
    shown: list[str] = []
    with style():
        figure = Figure(figsize=(WIDTH, 1.4 + LANE * top), layout="constrained")
        widths = _widths(table["row"], solved)
        shape: Look = {"squeeze": False, "width_ratios": widths}
        panels = figure.subplots(1, len(widths), sharey=True, **shape)[0].tolist()
        _rows(panels, places, ends)
        _draw_accuracies(panels[0], table[~solved], places, looks)
        if solved.any():
            _draw_samples(panels[1], table[solved], places, looks)
            marks = tables.published_marks(published, records[0].task)
            shown = _draw_published(panels[1], marks, places)
        entries = [Line2D([], [], label=label, **look) for label, look in looks.items()]
        entries += [published_entry(model, f"{model}, published") for model in shown]
        figure.legend(handles=entries, loc="outside lower center", ncols=5, fontsize=7.5)
        draw_heading(figure, table, "every seed is a point", bool(shown))
    return figure


def _widths(rows: pd.Series, solved: pd.Series) -> list[float]:
    """Return the widths of both panels, accuracies and samples, by the rows with points in them."""
    if not solved.any():
        return [1.0]
    shares = (rows[~solved].nunique(), rows[solved].nunique())
    return [max(share / max(shares), NARROW) for share in shares]


def _lanes(table: pd.DataFrame) -> list[Lane]:
    """Return all lanes from the top down: by the samples of the model with the most rows."""
    passed = table["samples_to_threshold"].astype(float)
    late = passed.fillna(UNSOLVED_FACTOR * table["samples"].max() * (2 - table["best_accuracy"]))
    most = table.groupby("label")["row"].nunique().idxmax()
    of_most = late[table["label"] == most].groupby(table["row"]).mean()
    means = late.groupby(table["row"]).mean().sort_values(kind="stable")
    ordered = sorted(means.index, key=lambda row: (row != USUAL, of_most.get(row, math.inf)))
    there = set(zip(table["row"], table["depth"], strict=True))
    depths = sorted(set(table["depth"]))
    return [Lane(row, depth) for row in ordered for depth in depths if (row, depth) in there]


def _places(lanes: Sequence[Lane]) -> tuple[dict[Lane, float], dict[str, tuple[float, float]]]:
    """Return the lanes' heights, from the bottom up, and the lower and upper end of every row."""
    places: dict[Lane, float] = {}
    ends: dict[str, tuple[float, float]] = {}
    top = 0.0
    for row in reversed(dict.fromkeys(lane.row for lane in lanes)):
        within = [lane for lane in lanes if lane.row == row]
        height = max(len(within), len(textwrap.wrap(row, ROW_CHARACTERS))) + GAP
        ends[row] = top, top + height
        first = top + (height + len(within) - 1) / 2
        places |= {lane: first - place for place, lane in enumerate(within)}
        top += height
    return places, ends


def _rows(
    panels: Sequence[Axes], places: Mapping[Lane, float], ends: Mapping[str, tuple[float, float]]
) -> None:
    """Draw the names of rows and lanes, and a shade behind every other row."""
    first = panels[0]
    first.set_yticks([*places.values()], [f"L = {lane.depth}" for lane in places], fontsize=7)
    first.set_ylim(0, max(high for _, high in ends.values()))
    for row, (low, high) in ends.items():
        name = textwrap.fill(row, ROW_CHARACTERS)
        place: Look = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        look: Look = {"ha": "right", "va": "center", "fontsize": 7.5, "annotation_clip": False}
        first.annotate(name, (0, (low + high) / 2), (-36, 0), **place, **look)
    for panel in panels:
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
        for low, high in [*ends.values()][::2]:
            panel.axhspan(low, high, color=SHADE, zorder=0)


def _draw_accuracies(
    panel: Axes, table: pd.DataFrame, places: Mapping[Lane, float], looks: Mapping[str, Look]
) -> None:
    """Draw hollow points at the best accuracy of every run that did not pass the threshold."""
    panel.set_xlabel("best validation accuracy (%)\nof runs that did not solve the task")
    panel.set_xlim(-3, 103)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    for (row, depth, label), runs in table.groupby(["row", "depth", "label"], sort=False):
        look = looks[str(label)] | {"markerfacecolor": "white"}
        panel.plot(
            100 * runs["best_accuracy"],
            [places[Lane(str(row), int(str(depth)))]] * len(runs),
            **look,
        )


def _draw_samples(
    panel: Axes, table: pd.DataFrame, places: Mapping[Lane, float], looks: Mapping[str, Look]
) -> None:
    """Draw full points at the samples after which every run passed the threshold."""
    threshold = tables.percent(float(table["threshold"].iloc[0]))
    panel.set_xlabel(f"training samples to {threshold}")
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(PEOPLE)
    panel.xaxis.set_minor_formatter(NullFormatter())
    for (row, depth, label), runs in table.groupby(["row", "depth", "label"], sort=False):
        samples = runs["samples_to_threshold"].astype(float)
        panel.plot(
            samples, [places[Lane(str(row), int(str(depth)))]] * len(runs), **looks[str(label)]
        )


def _draw_published(
    panel: Axes, marks: Sequence[tables.PublishedMark], places: Mapping[Lane, float]
) -> list[str]:
    """Draw stars in the reproduction's lane of their L; return the models that have one."""
    shown = [mark for mark in marks if mark.depth and Lane(USUAL, mark.depth) in places]
    for mark in shown:
        place = mark.samples, places[Lane(USUAL, mark.depth or 0)]
        panel.scatter(*place, color=published_color(mark.model), zorder=1.5, **STAR)
    return list(dict.fromkeys(mark.model for mark in shown))


def _marker(look: Look) -> Look:
    return {"marker": look["marker"], "color": look["color"], "linestyle": "", "alpha": 0.85}
