"""The picture of runs that differ in their settings: samples until they are solved.

A pure function from records to a figure, as in `tlstm.reporting.drawing`.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tlstm.records import table as tables
from tlstm.records.schema import (
    LATER,
    Record,
)
from tlstm.records.store import (
    latest,
)
from tlstm.reporting.style import (
    GREY,
    PEOPLE,
    PUBLISHED,
    STAR,
    Look,
    draw_heading,
    line_styles,
    one_picture,
    style,
)

ROW_CHARACTERS = 64
CLOSE = 2.0  # how many times another run's samples still have their accuracies told together
GAP = 0.6  # between rows, in lanes
SHADE = "#F4F4F4"
UNSOLVED_FACTOR = 10  # in the order of rows: what was not solved comes after what was
SIZES = ("model.depth", "model.core.depth", "model.core.tensor_size")  # every panel has its own
# Where a run that was not solved ended is seen in the picture
UNNAMED = (*SIZES, "training.max_samples")
BEGINNING = ("training.initial_range", "training.initial_input", "training.initial_bias")
AS_DRAWN = {name: str(LATER[name]) for name in BEGINNING}  # by the layer itself


class Lane(NamedTuple):
    """Where the runs of a model with some settings are drawn."""

    row: str
    label: str


def settings_figure(records: Sequence[Record], published: pd.DataFrame) -> Figure:
    """Samples to the threshold, a row for every choice of settings, a panel for every L.

    In a row every model has a lane. Every seed is a point; one that did not pass the threshold is
    hollow, where it ended, beside its best accuracy; those of close ones stand together, in their
    order. The first row names the settings of the reproduction's runs, or those that most runs
    have, every other row those in which it differs; what takes the fewest samples is further up.

    Args:
        records: of one scale and one task; the latest of every run is drawn.
        published: the rows of published.csv.

    Returns:
        A figure with a panel per L.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    table = one_picture(records, "depth")
    names = row_names({record.identifier: record for record in latest(records)})
    table = table.assign(row=table["identifier"].map(names), line=table["label"])
    looks = {label: _marker(look) for label, look in line_styles(table).items()}
    places, ends = _places(_lanes(table, list(looks)))
    depths = sorted(set(table["depth"]))
    marks = tables.published_marks(published, records[0].task)
    top = max(high for _, high in ends.values())
    with style():
        size = 5.2 + 3.4 * len(depths), 1.6 + 0.19 * top
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(depths), sharex=True, sharey=True, squeeze=False)[
            0
        ].tolist()
        for panel, depth in zip(panels, depths, strict=True):
            panel.set_title(f"L = {depth}", pad=12)
            _draw_runs(panel, table[table["depth"] == depth], places, looks)
            for mark in [mark for mark in marks if mark.depth == depth and mark.model in looks]:
                color = looks[mark.model]["color"]
                panel.axvline(mark.samples, color=color, linewidth=0.8, linestyle=":")
                panel.scatter(mark.samples, top, color=color, clip_on=False, zorder=3, **STAR)
        _axes(panels, ends, top, table)
        _legend(figure, table, looks, bool(marks))
        draw_heading(figure, table, "every seed is a point", bool(marks))
    return figure


def row_names(records: Mapping[str, Record]) -> dict[str, str]:
    """What sets every run apart from the reproduction's or, without any, from most of the others.

    A setting counts where runs of the same model differ in it.

    Args:
        records: by the runs' identifiers.

    Returns:
        The same identifiers with the names of their rows.
    """
    settings = {
        key: {name: str(value) for name, value in tables.settings(record).items()}
        for key, record in records.items()
    }
    names = dict.fromkeys(chain.from_iterable(settings.values()))
    values = pd.DataFrame(settings.values(), columns=[*names]).fillna("")
    several = values.groupby([record.label for record in records.values()]).nunique().max() > 1
    reproduction = [record.experiment not in tables.VARIED for record in records.values()]
    of_most = (values[reproduction] if any(reproduction) else values).mode().iloc[0]
    usual = {name: of_most[name] for name in names if several[name] and name not in UNNAMED}
    return {key: _row_name(each, usual) for key, each in settings.items()}


def _row_name(settings: Mapping[str, str], usual: Mapping[str, str]) -> str:
    given = {name: settings.get(name, "") for name in usual}
    different = {name: value for name, value in given.items() if value != usual[name]}
    if not different:
        return _named(usual)
    as_drawn = AS_DRAWN if AS_DRAWN.items() <= different.items() else {}
    words = ["the layer's own weights"] if as_drawn else []
    others = {name: value for name, value in different.items() if name not in as_drawn}
    return f"but {', '.join([*words, *([_named(others)] if others else [])])}"


def _named(settings: Mapping[str, str]) -> str:
    parts = (f"{name.rpartition('.')[2]} {value}" for name, value in settings.items())
    return tables.distinct(parts, ", ").replace("_", " ")


def _lanes(table: pd.DataFrame, labels: Sequence[str]) -> list[Lane]:
    """All lanes from the top down: by the samples that the model with the most rows takes."""
    passed = table["samples_to_threshold"].astype(float)
    late = passed.fillna(UNSOLVED_FACTOR * table["samples"].max() * (2 - table["best_accuracy"]))
    shown = table.groupby("label")["row"].nunique().idxmax()
    of_shown = late[table["label"] == shown].groupby(table["row"]).mean()
    means = late.groupby(table["row"]).mean().sort_values(kind="stable")
    rows = sorted(
        means.index, key=lambda row: (row.startswith("but "), of_shown.get(row, math.inf))
    )
    there = set(zip(table["row"], table["label"], strict=True))
    return [Lane(row, label) for row in rows for label in labels if (row, label) in there]


def _places(lanes: Sequence[Lane]) -> tuple[dict[Lane, float], dict[str, tuple[float, float]]]:
    """Heights of the lanes, from the bottom up, and the lower and upper end of every row."""
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


def _draw_runs(
    panel: Axes,
    table: pd.DataFrame,
    places: Mapping[Lane, float],
    looks: Mapping[str, Look],
) -> None:
    for (row, label), runs in table.groupby(["row", "label"], sort=False):
        look, place = looks[str(label)], places[Lane(str(row), str(label))]
        solved = runs["samples_to_threshold"].dropna().astype(float)
        panel.plot(solved, [place] * len(solved), **look)
        unsolved = runs[runs["samples_to_threshold"].isna()].sort_values("samples", kind="stable")
        panel.plot(unsolved["samples"], [place] * len(unsolved), **_hollow(look))
        apart = unsolved["samples"] > CLOSE * unsolved["samples"].shift()
        for _, ended in unsolved.groupby(apart.cumsum()):  # texts of close ones would overlap
            best = (f"{100 * value:.0f}%" for value in ended["best_accuracy"])
            panel.annotate(
                tables.distinct(best, ", "),
                (ended["samples"].max(), place),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )


def _marker(look: Look) -> Look:
    return {"marker": look["marker"], "color": look["color"], "linestyle": "", "alpha": 0.85}


def _hollow(look: Look) -> Look:
    return look | {"markerfacecolor": "white"}


def _axes(
    panels: Sequence[Axes],
    rows: Mapping[str, tuple[float, float]],
    top: float,
    table: pd.DataFrame,
) -> None:
    threshold = tables.percent(float(table["threshold"].iloc[0]))
    ends = table["samples_to_threshold"].astype(float).fillna(table["samples"])
    labels = [textwrap.fill(row, ROW_CHARACTERS) for row in rows]
    panels[0].set_yticks([(low + high) / 2 for low, high in rows.values()], labels)
    panels[0].set_ylim(0, top)
    panels[0].set_xscale("log")
    panels[0].set_xlim(ends.min() / 1.6, ends.max() * 3)
    for panel in panels:
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
        for low, high in [*rows.values()][::2]:
            panel.axhspan(low, high, color=SHADE, zorder=0)
        panel.set_xlabel(f"training samples to {threshold}")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(PEOPLE)
        panel.xaxis.set_minor_formatter(NullFormatter())


def _legend(
    figure: Figure, table: pd.DataFrame, looks: Mapping[str, Look], published: bool
) -> None:
    threshold = tables.percent(float(table["threshold"].iloc[0]))
    entries = [Line2D([], [], label=label, **look) for label, look in looks.items()]
    grey: Look = {"marker": "o", "linestyle": "", "color": GREY}
    entries += [
        Line2D([], [], label=f"passed {threshold}", **grey),
        Line2D([], [], label="did not, and their best accuracies in order", **_hollow(grey)),
    ]
    if published:
        star: Look = {"marker": "*", "markersize": 10, "markeredgecolor": "black", "color": GREY}
        entries.append(Line2D([], [], label=PUBLISHED, linestyle="", **star))
    figure.legend(handles=entries, loc="outside lower center", ncols=4, fontsize=8)
