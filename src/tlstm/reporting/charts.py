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
from bokeh.models.annotations import Whisker
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from tlstm.records.measures import original
from tlstm.records.schema import CurvePoint
from tlstm.reporting.style import OTHER_STYLES, STYLES

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


def quality(task: str) -> str:
    """Return the name of the quality that the curves of a task show."""
    return "bits per character" if original(task) == "wikipedia" else "accuracy (%)"


def quality_of(task: str, point: CurvePoint) -> float | None:
    """Return the quality at a point of a curve; None where the loss was not finite."""
    if original(task) != "wikipedia":
        return 100 * point.accuracy
    return None if point.loss is None else point.loss / math.log(2)


def curves(
    table: pd.DataFrame, points: Mapping[str, Sequence[CurvePoint]], name: str
) -> list[Chart]:
    """Draw learning curves, a picture for every L with the same axes, a line for every run.

    Args:
        table: rows of `run_table`, of one scale and one task.
        points: the curves by the runs' identifiers.
        name: of the group of pictures.
    """
    charts: list[Chart] = []
    for depth, runs in table.groupby("depth"):
        task, first = str(runs["task"].iloc[0]), charts[0].figure if charts else None
        shared = {"x_range": first.x_range, "y_range": first.y_range} if first else {}
        panel = _panel("training samples", quality(task), x_axis_type="log", **shared)
        panel.xaxis.formatter = NumeralTickFormatter(format="0.[0]a")
        for run in runs.to_dict("records"):
            _draw_run(panel, run, points[str(run["identifier"])])
        charts.append(Chart(f"{name}-{depth}", f"L = {depth}", panel, int(str(depth))))
    return charts


def _draw_run(panel: figure, run: Mapping[Any, Any], points: Sequence[CurvePoint]) -> None:
    shown = [(point.samples, quality_of(run["task"], point)) for point in points if point.samples]
    shown = [(samples, value) for samples, value in shown if value is not None]
    samples, values = zip(*shown, strict=True) if shown else ((), ())
    source = ColumnDataSource({"x": list(samples), "y": [round(value, 3) for value in values]})
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


def against_depth(rows: pd.DataFrame, value: str, title: str, name: str) -> Chart:
    """Draw means against L, bars for the range, a line for each configuration.

    Args:
        rows: with columns model, label, depth and `value`.
        value: name of the column to show.
        title: what it is, with its unit.
        name: of the picture.
    """
    panel = _panel("depth L", title)
    if value == "samples_to_threshold":
        panel.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    else:
        panel.yaxis.formatter = BasicTickFormatter(use_scientific=False)
    panel.xaxis.ticker = FixedTicker(ticks=sorted({int(depth) for depth in rows["depth"]}))
    for (model, label), runs in rows.dropna(subset=[value]).groupby(["model", "label"], sort=False):
        summary = runs.groupby("depth")[value].agg(["mean", "min", "max"]).reset_index()
        _draw_means(panel, str(model), str(label), ColumnDataSource(summary))
    return Chart(name, f"{title} against depth", panel)


def _draw_means(panel: figure, model: str, label: str, source: ColumnDataSource) -> None:
    look: dict[str, Any] = {"color": color(model), "name": label}
    marker = MARKERS.get(str(STYLES.get(model, {}).get("marker")), "circle")
    line = panel.line("depth", "mean", source=source, line_width=1.8, **look)
    dots = panel.scatter("depth", "mean", source=source, size=7, marker=marker, **look)
    bars = Whisker(
        base="depth",
        lower="min",
        upper="max",
        source=source,
        line_color=color(model),
        level="glyph",
    )
    bars.upper_head = bars.lower_head = None
    panel.add_layout(bars)
    for drawn in (line, dots, bars):
        drawn.tags = [{"model": model}, _ink(model)]


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
