"""The picture of how an answer is learnt: position × training samples, with accuracy as colour.

A pure function from records to a figure, as in `tlstm.reporting.style`.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from tlstm.records.schema import Record
from tlstm.records.store import latest
from tlstm.reporting.style import PEOPLE, Look, draw_heading, one_picture, style

COLUMNS = 200  # of a panel's image
WIDTH, HEIGHT = 2.6, 1.5  # inches of a panel
TITLE_CHARACTERS = 36
COLORS = "viridis"


def positions_figure(records: Sequence[Record]) -> Figure:
    """Draw a panel for each run, a row for each configuration and a column for each seed.

    The first position of the answer is at the top. All panels have the same samples; a run that
    was solved keeps its last accuracy. Runs that did not measure positions have no panel.

    Raises:
        ValueError: no run has measured them, or the records are not those of `one_picture`.
    """
    by_identifier = {record.identifier: record for record in latest(records)}
    table = one_picture(records, "depth")
    table["name"] = table["line"] + ", L = " + table["depth"].astype(str)
    measured = [_is_measured(by_identifier[identifier]) for identifier in table["identifier"]]
    shown = table[measured]
    if shown.empty:
        raise ValueError("no run has measured the accuracy at each position of its answer")
    names, seeds = list(dict.fromkeys(shown["name"])), sorted(set(shown["seed"]))
    end = int(shown["samples"].max())
    with style():
        size = 1.2 + WIDTH * len(seeds), 0.5 + HEIGHT * len(names)
        figure = Figure(figsize=(max(size[0], 6), size[1]), layout="constrained")
        panels = figure.subplots(len(names), len(seeds), squeeze=False, sharex=True)
        for panel in panels.flat:
            panel.set_axis_off()
        for row in shown.to_dict("records"):
            panel = panels[names.index(row["name"]), seeds.index(row["seed"])]
            panel.set_axis_on()
            draw_positions(panel, by_identifier[row["identifier"]], end)
            title = textwrap.fill(f"{row['name']}, seed {row['seed']}", TITLE_CHARACTERS)
            panel.set_title(title, fontsize=7.5)
        colors = ScalarMappable(Normalize(0, 100), COLORS)
        figure.colorbar(colors, ax=panels, label="validation accuracy (%)")
        draw_heading(figure, shown, "a panel for each run", False)
    return figure


def _is_measured(record: Record) -> bool:
    return any(point.positions for point in record.curve)


def draw_positions(panel: Axes, record: Record, end: int) -> AxesImage:
    """Draw the accuracies of one run up to so many training samples."""
    image = accuracies(record, np.linspace(0, end, COLUMNS))
    panel.grid(visible=False)
    panel.set_ylabel("position", fontsize=8)
    panel.set_xlabel("training samples", fontsize=8)
    panel.xaxis.set_major_formatter(PEOPLE)
    panel.tick_params(labelsize=7)
    extent = 0, end, len(image) + 0.5, 0.5
    look: Look = {"aspect": "auto", "interpolation": "nearest", "cmap": COLORS}
    return panel.imshow(100 * image, extent=extent, vmin=0, vmax=100, **look)


def accuracies(record: Record, samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a run's accuracy at each position after so many samples, [positions, samples].

    It is that of the last validation until then; before the first one it is that of the first.
    """
    points = [point for point in record.curve if point.positions]
    values = np.array([point.positions for point in points]).T
    places = np.searchsorted([point.samples for point in points], samples, side="right") - 1
    return values[:, np.clip(places, 0, None)]
