"""The picture of a random search: the best accuracy of every run against each setting.

A pure function from records to a figure, as in `tlstm.reporting.style`.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tlstm.records import table as tables
from tlstm.records.schema import Record
from tlstm.records.store import latest
from tlstm.reporting.style import Look, draw_heading, one_picture, style

PANELS = 3  # in a row
WIDTH, HEIGHT = 3.0, 2.2  # inches of a panel
WIDE = 5  # times the smallest value, from which an axis is logarithmic
LOOK: Look = {"linestyle": "", "marker": "o", "markersize": 4, "alpha": 0.7, "color": "#0072B2"}
NOT_SEARCHED = ("seed", "training.max_samples")


def search_figure(records: Sequence[Record]) -> Figure:
    """Draw a panel for each setting in which runs differ; errors are those of `one_picture`."""
    table = one_picture(records, "depth")
    runs = latest(records)
    searched = searched_settings(runs)
    lines = -(-max(len(searched), 1) // PANELS)
    with style():
        size = WIDTH * PANELS, HEIGHT * lines
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(lines, PANELS, squeeze=False, sharey=True)
        for panel in panels.flat[len(searched) :]:
            panel.set_axis_off()
        accuracy = [100 * (run.best["accuracy"] or 0.0) for run in runs]
        for panel, (name, values) in zip(panels.flat, searched.items(), strict=False):
            _draw_setting(panel, name, values, accuracy)
        for panel in panels[:, 0]:
            panel.set_ylabel("best accuracy (%)")
        draw_heading(figure, table, "every run is a point", False)
    return figure


def searched_settings(runs: Sequence[Record]) -> dict[str, list[object]]:
    """Return the settings in which runs differ, with the value of every run; None for none."""
    given = [tables.settings(run) for run in runs]
    names = dict.fromkeys(name for settings in given for name in settings)
    values = {name: [settings.get(name) for settings in given] for name in names}
    return {
        name: each
        for name, each in values.items()
        if len(set(map(str, each))) > 1 and name not in NOT_SEARCHED
    }


def _draw_setting(
    panel: Axes, name: str, values: Sequence[object], accuracy: Sequence[float]
) -> None:
    """Draw numbers on an axis, logarithmic where they are far apart; words one beside the other."""
    panel.set_xlabel(name.rpartition(".")[2].replace("_", " "))
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        panel.plot(numbers, accuracy, **LOOK)
        if min(numbers) > 0 and max(numbers) > WIDE * min(numbers):
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
    else:
        panel.plot([str(value) for value in values], accuracy, **LOOK)
