"""The report page's interactive pictures, as Bokeh figures.

Pure functions from the frame of runs to figures. Every line says in its tag which runs it is of,
so that the page's filters can hide it; colours of text and grid are the page's own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from bokeh.models import (
    BasicTickFormatter,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    Line,
    NumeralTickFormatter,
)
from bokeh.models.annotations import Span, Whisker
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from tlstm.records import table as tables
from tlstm.records.measures import ACCURACY, measure_of
from tlstm.records.schema import CurvePoint
from tlstm.reporting import rows
from tlstm.reporting.style import GREY, OTHER_STYLES, STYLES, published_color

INK = "#000000"
HEIGHT = 270
TOOLS = "pan,box_zoom,wheel_zoom,reset,save"
DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")  # of seeds 0, 1, ...
MARKERS = {
    "s": "square",
    "o": "circle",
    "v": "inverted_triangle",
    "P": "plus",
    "^": "triangle",
    "D": "diamond",
    "X": "x",
}
TIME = "µs per timestep of a batch"


class Chart(NamedTuple):
    """A picture and the runs it is of.

    Attributes:
        name: its place on the page, unique there.
        title: above it.
        figure: the picture.
        depth: L where it is of one.
    """

    name: str
    title: str
    figure: figure
    depth: int | None = None


def color(model: str) -> str:
    """Return a configuration's colour, the same as in the figures."""
    other = OTHER_STYLES[sum(map(ord, model)) % len(OTHER_STYLES)]
    return str(STYLES.get(model, other)["color"])


def curves(
    table: pd.DataFrame,
    points: Mapping[str, Sequence[CurvePoint]],
    name: str,
    marks: Sequence[tables.PublishedMark] = (),
) -> list[Chart]:
    """Draw learning curves, a picture for every L with the same axes, a line for every run.

    Where a task can be solved, a broken line is at the threshold.

    Args:
        table: rows of `run_table`, of one scale and one task.
        points: the curves by the runs' identifiers.
        name: of the group of pictures.
        marks: published numbers, drawn as stars.
    """
    charts: list[Chart] = []
    measure = measure_of(str(table["task"].iloc[0]))
    for depth, runs in table.groupby("depth"):
        first = charts[0].figure if charts else None
        shared = {"x_range": first.x_range, "y_range": first.y_range} if first else {}
        panel = _panel("training samples", measure.title, x_axis_type="log", **shared)
        panel.xaxis.formatter = NumeralTickFormatter(format="0.[0]a")
        for run in runs.to_dict("records"):
            _draw_run(panel, run, points[str(run["identifier"])])
        if tables.is_solvable(table):
            threshold = 100 * float(table["threshold"].iloc[0])
            line = Span(location=threshold, dimension="width", line_color=GREY, line_dash="dotted")
            panel.add_layout(line)
        for mark in marks:
            if mark.depth in (None, depth):
                _draw_star(panel, mark)
        charts.append(Chart(f"{name}-{depth}", f"L = {depth}", panel, int(str(depth))))
    return charts


def _quality(task: str, point: CurvePoint) -> float | None:
    """Return the measure at a point of a curve; None where the loss was not finite."""
    if measure_of(task) is ACCURACY:
        return 100 * point.accuracy
    return None if point.loss is None else point.loss / math.log(2)


def _draw_run(panel: figure, run: Mapping[Any, Any], points: Sequence[CurvePoint]) -> None:
    found = [(point.samples, _quality(run["task"], point)) for point in points if point.samples]
    shown = [(samples, round(value, 3)) for samples, value in found if value is not None]
    source = ColumnDataSource({"x": [x for x, _ in shown], "y": [y for _, y in shown]})
    look = Line(
        line_color=color(run["model"]),
        line_width=1.8,
        line_alpha=0.9,
        line_dash=DASHES[run["seed"] % len(DASHES)],
    )
    # Not `panel.line`, which makes looks for selections too: there may be hundreds of runs
    line = GlyphRenderer(data_source=source, glyph=look, nonselection_glyph=None)
    line.name = f"{run['label']}, L = {run['depth']}, M = {run['channels']}, seed {run['seed']}"
    line.tags = [{"model": run["model"], "seed": str(run["seed"])}, _ink(run["model"])]
    panel.renderers.append(line)


def _draw_star(panel: figure, mark: tables.PublishedMark) -> None:
    look: dict[str, Any] = {"size": 15, "marker": "star", "line_color": GREY}
    shade = published_color(mark.model)
    name = f"{mark.model}, published"
    star = panel.scatter([mark.samples], [mark.accuracy], fill_color=shade, name=name, **look)
    models = rows.COUNTERPARTS.get(mark.model, [])
    star.tags = [{"model": models[0]} if len(models) == 1 else {}, ""]


def against_depth(table: pd.DataFrame, value: str, title: str, name: str) -> Chart:
    """Draw means against L, bars for the range, a line for each configuration.

    Args:
        table: with columns model, label, depth and `value`.
        value: name of the column to show.
        title: what it is, with its unit.
        name: of the picture.
    """
    panel = _panel("depth L", title)
    if value == "samples_to_threshold":
        panel.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    else:
        panel.yaxis.formatter = BasicTickFormatter(use_scientific=False)
    panel.xaxis.ticker = FixedTicker(ticks=sorted({int(depth) for depth in table["depth"]}))
    known = table.dropna(subset=[value])
    for (model, label), runs in known.groupby(["model", "label"], sort=False):
        summary = runs.groupby("depth")[value].agg(["mean", "min", "max"]).reset_index()
        _draw_means(panel, str(model), str(label), ColumnDataSource(summary))
    return Chart(name, f"{title} against depth", panel)


def _draw_means(panel: figure, model: str, label: str, source: ColumnDataSource) -> None:
    look: dict[str, Any] = {"color": color(model), "name": label}
    marker = MARKERS.get(str(STYLES.get(model, {}).get("marker")), "circle")
    line = panel.line("depth", "mean", source=source, line_width=1.8, **look)
    dots = panel.scatter("depth", "mean", source=source, size=7, marker=marker, **look)
    ends: dict[str, Any] = {"base": "depth", "lower": "min", "upper": "max", "level": "glyph"}
    bars = Whisker(source=source, line_color=color(model), **ends)
    bars.upper_head = bars.lower_head = None
    panel.add_layout(bars)
    for drawn in (line, dots, bars):
        drawn.tags = [{"model": model}, _ink(model)]


def summaries(table: pd.DataFrame, name: str) -> list[Chart]:
    """Draw quality, samples to the threshold and runtime against L, for one scale and task."""
    graded = table.assign(shown=rows.quality(table), label=tables.line_names(table, "depth"))
    solved = graded.dropna(subset=["samples_to_threshold"])
    timed, _ = rows.timed(graded)
    benchmark = ", benchmark" if timed["benchmark"].all() else ""
    where = f", {timed['hardware'].iloc[0]}{benchmark}"
    shown = [
        (graded, "shown", measure_of(str(table["task"].iloc[0])).title, ""),
        (solved, "samples_to_threshold", "samples to the threshold", ", of runs that passed it"),
        (timed, "microseconds", TIME, where),
    ]
    drawn = [
        (against_depth(runs, column, title, f"{name}-{column}"), note)
        for runs, column, title, note in shown
        if len(runs)
    ]
    return [chart._replace(title=chart.title + note) for chart, note in drawn]


def runtimes(times: pd.DataFrame) -> list[Chart]:
    """Draw the benchmark's runtime against L, by machine and task, each with its heading.

    Args:
        times: rows of `rows.benchmark_times`, with the configurations' labels.
    """
    found = []
    groups = times.groupby(["hardware", "scale", "task"], sort=False)
    for number, ((hardware, scale, task), runs) in enumerate(groups):
        quick = " (quick: short sequences)" if scale == "quick" else ""
        chart = against_depth(runs, "microseconds", TIME, f"runtime-{number}")
        heading = f"{rows.task_title(str(task))}, {hardware}{quick}"
        found.append(chart._replace(title=heading))
    return found


def _ink(model: str) -> str:
    """Mark what is drawn in black, which is the colour of the text where the page is dark."""
    return "ink" if color(model) == INK else ""


def _panel(x_title: str, y_title: str, **options: Any) -> figure:
    panel = figure(
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools=TOOLS,
        active_drag=None,  # a finger that scrolls the page is not caught
        active_scroll=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **options,
    )
    panel.add_tools(
        HoverTool(tooltips=[("", "$name"), (x_title, "$x{0,0}"), (y_title, "$y{0.000}")])
    )
    panel.toolbar.logo = None
    panel.toolbar.autohide = True
    panel.xaxis.axis_label, panel.yaxis.axis_label = x_title, y_title
    return panel
