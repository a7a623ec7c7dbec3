"""The pictures of Figures 4 and 5: accuracy while a model learns, a panel for every depth.

Pure functions from records to figures, as in `tlstm.reporting.style`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from tlstm.records import table as tables
from tlstm.records.schema import CurvePoint, Record
from tlstm.records.store import latest
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
    published_color,
    seeds_in_words,
    style,
)

Numbers = npt.NDArray[np.float64]

SOLVED = "_solved"  # the line to pass; an underscore keeps it out of a legend
CHANCE = 1.6  # times the accuracy of a guess, up to which nothing was learnt [ours]
DIGITS = 10  # the classes of MNIST
FLAT: Look = {"color": GREY, "linewidth": 0.7, "marker": "", "zorder": 1}
MARKED = 0.2  # of a panel, from one mark of a line to its next
FAINT: Look = {"linewidth": 0.5, "alpha": 0.35, "label": "_every validation", "zorder": 1}
LOW, ROOM = 50, 0.15  # accuracies up to which the axis is fitted, and the room around the lines
WINDOW = 9  # validations that are smoothed there, where lines are close


class MeanCurve(NamedTuple):
    """Accuracy over several seeds at the same numbers of training samples; fractions."""

    samples: Numbers
    mean: Numbers
    lowest: Numbers
    highest: Numbers


def mean_curve(curves: Sequence[Sequence[CurvePoint]]) -> MeanCurve:
    """Return mean and range of curves at every point of any of them, linear in between.

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
    """Draw Figure 4 or 5 for one task: accuracy in training at every depth, and runtime.

    Where a task can be solved (Figure 4) it is drawn against the logarithm of the training
    samples, beside the published marks; elsewhere (Figure 5) against epochs.

    Records, times and errors are those of `one_picture`.

    Returns:
        A figure with a panel per depth, one for the runtime and, last, the legend's.
    """
    table = one_picture(records, "depth", times)
    curves = {
        record.identifier: [point for point in record.curve if point.samples]  # for a logarithm
        for record in latest(records)
    }
    solvable = tables.is_solvable(table)
    marks = tables.published_marks(published, records[0].task)
    epoch = 1 if solvable else _epoch(records[0])
    depths = sorted(set(table["depth"]))
    styles, chance = line_styles(table), at_chance(records[0])
    best = 100 * max((point.accuracy for curve in curves.values() for point in curve), default=0)
    many = any(len(curve) > 3 * WINDOW for curve in curves.values())
    window = WINDOW if best < LOW and many else 1
    with style():
        figure, (*panels, runtime), legend = make_panels(len(depths) + 1)
        flat = False
        for panel, depth in zip(panels, depths, strict=True):
            panel.set_title(f"L = {depth}")
            runs = table[table["depth"] == depth]
            flat |= _draw_curves(panel, runs, curves, styles, epoch, chance, window)
        _accuracy_axes(panels, best)
        _samples_axes(panels, epoch, float(table["threshold"].iloc[0]) if solvable else None)
        shown: dict[str, str] = {}
        for panel, depth in zip(panels, depths, strict=True):
            shown |= _draw_published(panel, [m for m in marks if m.depth in (None, depth)])
        draw_runtime(runtime, table, "depth", styles)
        draw_legend(legend, styles | ({"never left chance": FLAT} if flat else {}), shown)
        seeds = seeds_in_words(table, "lines are means, bands the range")
        seeds += f", smoothed: medians of {window} validations" if window > 1 else ""
        draw_heading(figure, table, seeds, bool(shown))
    return figure


def at_chance(record: Record) -> float:
    """Return the accuracy below which a run of this task has learnt nothing; a fraction [ours].

    Always the same answer is right somewhat more often than a guess among the classes is.
    """
    task: Any = record.config.get("task", {})
    return CHANCE / task.get("base", task.get("alphabet", DIGITS))


def _epoch(record: Record) -> int:
    """Return the training samples between two validations, as a run was configured."""
    training: Any = record.config.get("training", {})
    return int(training.get("samples_per_epoch", 1))


def _draw_curves(
    panel: Axes,
    runs: pd.DataFrame,
    curves: Mapping[str, Sequence[CurvePoint]],
    styles: Mapping[str, Look],
    epoch: int,
    chance: float,
    window: int,
) -> bool:
    """Draw the mean of every line's seeds, grey where it never left chance; tell if any did not.

    Lines are medians of `window` validations, with every validation faintly behind them.
    """
    flat = False
    for line, group in runs.groupby("line", sort=False):
        shown = [curves[identifier] for identifier in group["identifier"]]
        shown = [curve for curve in shown if curve]
        if not shown:
            continue
        curve = mean_curve(shown)
        smooth = pd.Series(curve.mean).rolling(window, center=True, min_periods=1).median()
        learnt = smooth.max() > chance
        flat |= not learnt
        look = styles[str(line)] | ({} if learnt else FLAT)
        first = MARKED * list(styles).index(str(line)) / len(styles)  # marks of lines alike differ
        places = curve.samples / epoch
        look |= {"markevery": (first, MARKED), "alpha": 0.9, "label": line}
        if window > 1:
            panel.plot(places, 100 * curve.mean, color=look["color"], **FAINT)
        panel.plot(places, 100 * smooth, **look)
        if (curve.lowest < curve.highest).any():
            band = 100 * curve.lowest, 100 * curve.highest
            panel.fill_between(places, *band, color=look["color"], alpha=0.16, linewidth=0)
    return flat


def _draw_published(panel: Axes, marks: Sequence[tables.PublishedMark]) -> dict[str, str]:
    """Draw stars in the colour of their model, at the upper edge where they are above the axis.

    Returns:
        What the legend says of the models that are drawn. Those above an axis that was fitted to
        the runs are not drawn after more samples than the runs have.
    """
    (_, end), (_, top) = panel.get_xlim(), panel.get_ylim()
    shown = [mark for mark in marks if mark.accuracy <= top or mark.samples <= end]
    for mark in shown:
        height = min(mark.accuracy, top)
        look = STAR | {"color": published_color(mark.model), "clip_on": False, "zorder": 5}
        panel.scatter(mark.samples, height, **look)
    return {
        mark.model: f"{mark.model}, published"
        + (f": {mark.accuracy:g}%, above" if mark.accuracy > top else "")
        for mark in shown
    }


def _accuracy_axes(panels: Sequence[Axes], best: float) -> None:
    """Set the same axes for every panel, in per cent; fitted where all runs stayed low."""
    for panel in panels:
        panel.sharex(panels[0])
        panel.sharey(panels[0])
        place = panel.get_subplotspec()
        if place is not None and place.is_first_col():
            panel.set_ylabel("validation accuracy (%)")
        else:
            panel.tick_params(labelleft=False)
    heights = [
        np.asarray(line.get_ydata(), dtype=float)
        for panel in panels
        for line in panel.lines
        if not str(line.get_label()).startswith("_")
    ]
    least = min(float(each.min()) for each in heights)
    room = ROOM * (best - least)
    fitted = best < LOW and room > 0
    panels[0].set_ylim(*(least - room, best + room) if fitted else (-3, 109))


def _samples_axes(panels: Sequence[Axes], epoch: int, threshold: float | None) -> None:
    """Set an axis of logarithmic samples with a line to pass; of epochs, where there is none."""
    axis = panels[0].xaxis
    for panel in panels:
        panel.set_xlabel(
            f"epochs of {tables.people(epoch)} samples" if threshold is None else "training samples"
        )
        if threshold is not None and panel.get_ylim()[1] > 100 * threshold:
            panel.axhline(100 * threshold, color=GREY, linewidth=0.8, linestyle=":", label=SOLVED)
    if threshold is None:
        panels[0].set_xlim(left=0)
        axis.set_major_locator(MaxNLocator(integer=True))
    else:
        panels[0].set_xscale("log")
        axis.set_major_formatter(PEOPLE)
        axis.set_minor_formatter(NullFormatter())
