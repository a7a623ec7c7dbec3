"""The pictures of Figures 4 and 5: accuracy while a model learns, a panel for every depth.

Pure functions from records to figures, as in `tlstm.reporting.drawing`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from tlstm.records import table as tables
from tlstm.records.schema import (
    CurvePoint,
    Record,
)
from tlstm.records.store import (
    latest,
)
from tlstm.reporting.style import (
    GREY,
    PEOPLE,
    STAR,
    Look,
    draw_heading,
    draw_legend,
    draw_runtime,
    line_styles,
    make_panels,
    one_picture,
    style,
)

Numbers = npt.NDArray[np.float64]


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


def learning_curves(
    records: Sequence[Record], published: pd.DataFrame, times: pd.DataFrame | None = None
) -> Figure:
    """Figure 4 or 5 for one task: accuracy during the training at every depth, and runtime.

    Where a task can be solved (Figure 4) it is drawn against the logarithm of the training
    samples, beside the published marks; elsewhere (Figure 5) against epochs.

    Args:
        records: of one scale and one task; the latest of every run is drawn.
        published: the rows of published.csv.
        times: of the benchmark, as `growth.of_measurements` has them.

    Returns:
        A figure with a panel per depth, one for the runtime and, last, the legend's.

    Raises:
        ValueError: there are no records, or they are of several scales or tasks.
    """
    table = one_picture(records, "depth", times)
    curves = {record.identifier: _drawable(record.curve) for record in latest(records)}
    solvable = tables.is_solvable(table)
    marks = tables.published_marks(published, records[0].task)
    epoch = 1 if solvable else _epoch(records)
    depths = sorted(set(table["depth"]))
    styles = line_styles(table)
    with style():
        figure, panels, legend = make_panels(len(depths) + 1)
        for panel, depth in zip(panels[:-1], depths, strict=True):
            panel.set_title(f"L = {depth}")
            _draw_curves(panel, table[table["depth"] == depth], curves, styles, epoch)
            _draw_published(panel, [mark for mark in marks if mark.depth in (None, depth)], styles)
        _accuracy_axes(panels[:-1])
        if solvable:
            _samples_axes(panels[:-1], float(table["threshold"].iloc[0]))
        else:
            _epoch_axes(panels[:-1], epoch)
        draw_runtime(panels[-1], table, "depth", styles)
        draw_legend(legend, styles, bool(marks))
        draw_heading(figure, table, "lines are means, bands the range", bool(marks))
    return figure


def _epoch(records: Sequence[Record]) -> int:
    """Training samples between two validations, as the runs were configured."""
    training = records[0].config.get("training")
    epoch = training.get("samples_per_epoch") if isinstance(training, dict) else None
    return epoch if isinstance(epoch, int) else 1


def _drawable(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """What a logarithmic axis can show."""
    return [point for point in curve if point.samples > 0]


def _draw_curves(
    panel: Axes,
    runs: pd.DataFrame,
    curves: Mapping[str, Sequence[CurvePoint]],
    styles: Mapping[str, Look],
    epoch: int,
) -> None:
    for line, group in runs.groupby("line", sort=False):
        shown = [curves[identifier] for identifier in group["identifier"]]
        shown = [curve for curve in shown if curve]
        if shown:
            _draw_curve(panel, str(line), mean_curve(shown), styles[str(line)], epoch)


def _draw_curve(panel: Axes, line: str, curve: MeanCurve, look: Look, epoch: int) -> None:
    places, percent = curve.samples / epoch, 100 * curve.mean
    panel.plot(places, percent, label=line, markevery=0.15, alpha=0.9, **look)
    if (curve.lowest < curve.highest).any():
        band = 100 * curve.lowest, 100 * curve.highest
        panel.fill_between(places, *band, color=look["color"], alpha=0.16, linewidth=0)


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


def _accuracy_axes(panels: Sequence[Axes]) -> None:
    """The same axes for every panel, in per cent."""
    for panel in panels:
        panel.sharex(panels[0])
        panel.sharey(panels[0])
        place = panel.get_subplotspec()
        if place is not None and place.is_first_col():
            panel.set_ylabel("validation accuracy (%)")
        else:
            panel.tick_params(labelleft=False)
    panels[0].set_ylim(-3, 109)


def _samples_axes(panels: Sequence[Axes], threshold: float) -> None:
    """Logarithmic training samples, and a line to pass."""
    for panel in panels:
        panel.axhline(100 * threshold, color=GREY, linewidth=0.8, linestyle=":", label="_solved")
        panel.set_xlabel("training samples")
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_formatter(PEOPLE)
    panels[0].xaxis.set_minor_formatter(NullFormatter())


def _epoch_axes(panels: Sequence[Axes], epoch: int) -> None:
    """Whole epochs, from the start."""
    for panel in panels:
        panel.set_xlabel(f"epochs of {tables.people(epoch)} samples")
    panels[0].set_xlim(left=0)
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
