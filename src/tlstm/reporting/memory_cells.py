"""Figure 6: the memory cell of one run, aligned with its inputs and answers, and the page of all.

Pure functions from stored numbers to figures; nothing is read or written.
"""

import math
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlstm.records import table as tables
from tlstm.records.measures import original
from tlstm.records.memory_cells import MemoryCells
from tlstm.records.schema import Record
from tlstm.reporting.pages import rendered
from tlstm.reporting.rows import run_table, task_title
from tlstm.reporting.style import GREY, RED, style, write_above

Numbers = npt.NDArray[np.float64]

WIDTH = 12.0  # inches
ROW = 0.3  # of a location, or of a line of text
POINTS_PER_COLUMN = 0.85 * 72 * WIDTH  # of all columns together, without the labels
LARGEST_TEXT = 10.5
CHARACTER_WIDTH = 0.72  # of the text's size
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\ufffd": "·"}


def scaled(cells: Sequence[Sequence[float]]) -> Numbers:
    """Scale a panel to 0 to 1, its smallest and largest number [paper]; zeros if all are equal."""
    panel = np.array(cells, dtype=np.float64)
    span = panel.max() - panel.min()
    return np.zeros_like(panel) if span == 0 else (panel - panel.min()) / span


def figure(cells: MemoryCells) -> Figure:
    """Draw Figure 6 for one run: inputs, memory cell and answers, timestep below timestep.

    Returns:
        A figure with axes for the inputs, the memory cell, the answers, the colours and, where
        the inputs are an image, the image.
    """
    heights = [1.0 if _is_discrete(cells) else 1.5, len(cells.cells) + 1.5, 2.0]
    image = [] if _is_discrete(cells) else [0.15]
    with style():
        drawn = Figure(figsize=(WIDTH, ROW * sum(heights) + 0.6), layout="constrained")
        grid = drawn.add_gridspec(
            3, 2 + len(image), height_ratios=heights, width_ratios=[1, 0.01, *image]
        )
        memory = drawn.add_subplot(grid[1, 0])
        inputs = drawn.add_subplot(grid[0, 0], sharex=memory)
        answers = drawn.add_subplot(grid[2, 0], sharex=memory)
        colours = drawn.add_subplot(grid[1, 1])
        _draw_memory(memory, colours, cells)
        _draw_inputs(inputs, cells)
        _draw_answers(answers, cells)
        if image:
            _draw_image(drawn.add_subplot(grid[:, 2]), cells)
        memory.set_xlim(0.5, len(cells.cells[0]) + 0.5)  # which the inputs share and fall short of
        write_above(drawn, _heading(cells))
        _settle(drawn)
    return drawn


def _settle(drawn: Figure) -> None:
    """Lay a figure out for good, and round: the layout's last bits differ from time to time."""
    drawn.draw_without_rendering()
    drawn.set_layout_engine("none")
    for panel in drawn.axes:
        left, bottom, width, height = panel.get_position(original=True).bounds
        panel.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))


def _is_discrete(cells: MemoryCells) -> bool:
    return isinstance(cells.inputs[0], str)


def _draw_memory(panel: Axes, colours: Axes, cells: MemoryCells) -> None:
    values = scaled(cells.cells)
    rows, columns = values.shape
    shown = panel.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, columns + 0.5, rows + 0.5, 0.5),
        vmin=0,
        vmax=1,
        cmap="viridis",
    )
    panel.grid(False)
    panel.set_yticks(range(1, rows + 1), [_location(p, rows) for p in range(1, rows + 1)])
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel(_timesteps(cells))
    bar = panel.figure.colorbar(shown, cax=colours, ticks=[0, 1])
    smallest, largest = (extreme(map(extreme, cells.cells)) for extreme in (min, max))
    bar.ax.set_yticklabels([f"0 ({smallest:.2g})", f"1 ({largest:.2g})"], fontsize=8)


def _location(place: int, last: int) -> str:
    ends = {1: "input ", last: "output "}
    return f"{ends.get(place, '') if last > 1 else ''}p = {place}"


def _timesteps(cells: MemoryCells) -> str:
    late = f"{cells.delay} timestep{'s' if cells.delay != 1 else ''} after its input"
    return f"timestep; an answer comes L − 1 = {late}"


def _draw_inputs(panel: Axes, cells: MemoryCells) -> None:
    _bare(panel, ["input"])
    if _is_discrete(cells):
        _write_row(panel, 0, cells.inputs, 1, _text_size(cells), ["black"] * len(cells.inputs))
        return
    pixels = np.array([cells.inputs], dtype=np.float64)
    extent = (0.5, len(cells.inputs) + 0.5, 0.5, -0.5)
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "cmap": "gray"}
    panel.imshow(pixels, extent=extent, vmin=0, vmax=1, **look)
    panel.spines[:].set(visible=True, color=GREY)


def _draw_answers(panel: Axes, cells: MemoryCells) -> None:
    """Draw the right answers and, below, the network's; in red where it is wrong."""
    _bare(panel, ["target", "output"])
    pairs = zip(cells.targets, cells.outputs, strict=True)
    colours = ["black" if right == given else RED for right, given in pairs]
    first, size = 1 + cells.delay, _text_size(cells)
    _write_row(panel, 0, cells.targets, first, size, ["#555555"] * len(cells.targets))
    _write_row(panel, 1, cells.outputs, first, size, colours)


def _bare(panel: Axes, rows: Sequence[str]) -> None:
    """Lay out rows of text or pixels with their names, and no frame."""
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_yticks(range(len(rows)), rows)
    panel.tick_params(length=0, labelbottom=False)
    panel.grid(False)
    panel.spines[:].set_visible(False)


def _write_row(
    panel: Axes,
    row: int,
    names: Sequence[str | float | None],
    first: int,
    size: float,
    colours: Sequence[str],
) -> None:
    """Write names at the timesteps from the first on; nothing where there is None."""
    last = first + len(names) - 1
    for timestep, (name, colour) in enumerate(zip(names, colours, strict=True), start=first):
        if name is not None:
            side = "right" if timestep == last and len(names) > 100 else "center"
            text = VISIBLE.get(str(name), str(name))
            panel.text(timestep, row, text, ha=side, va="center", size=size, color=colour)


def _text_size(cells: MemoryCells) -> float:
    """Return the largest size that the columns allow; a label's if only the end has an answer."""
    if not _is_discrete(cells):
        return LARGEST_TEXT
    longest = max(len(str(name)) for name in cells.inputs)
    column = POINTS_PER_COLUMN / len(cells.cells[0])
    return min(LARGEST_TEXT, column / (CHARACTER_WIDTH * longest))


def _draw_image(panel: Axes, cells: MemoryCells) -> None:
    """Draw the pixels in rows, in the order in which they were read."""
    side = math.isqrt(len(cells.inputs))
    pixels = np.array(cells.inputs, dtype=np.float64)[: side * side].reshape(side, side)
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_xlabel("as read", size=9)
    panel.spines[:].set(visible=True, color=GREY)


def _heading(cells: MemoryCells) -> list[tuple[str, dict[str, Any]]]:
    """Write what was run and, in red, where it is not the paper's."""
    record = cells.record
    size = tables.sizes(run_table([record]))
    title = f"Memory cell of {record.label}, L = {record.depth}: {size}"
    facts = (
        f"channel mean at the locations (p,..,p), scaled to [0, 1]; {record.scale} scale, "
        f"run {record.identifier[:8]} (seed {record.seed}, {record.samples:,} samples, "
        f"{_quality(record)}), test sample {cells.sample}"
    )
    rows: list[tuple[str, dict[str, Any]]] = [(title, {"size": 13, "weight": "bold"})]
    rows += [(line, {"color": "#555555"}) for line in textwrap.wrap(facts, int(14 * WIDTH))]
    return rows + [(line, {"color": RED, "weight": "bold"}) for line in warnings(cells)]


def _quality(record: Record) -> str:
    bits = record.test.get("bits_per_character")
    if bits is not None:
        return f"{bits:.3f} bits per character"
    return f"test accuracy {record.test['accuracy']:.1%}"


def warnings(cells: MemoryCells) -> list[str]:
    """Return the ways in which the run is not the paper's."""
    record = cells.record
    name = original(record.task)
    scale = f"{record.scale.upper()} SCALE: not the paper's size"
    data = f"The data are {record.task}, not {name}"
    return [scale] * (record.scale != "paper") + [data] * (name != record.task)


def page(stored: Sequence[MemoryCells]) -> str:
    """Return the page of Figure 6, in Markdown: scales from the paper's down, smoke last.

    Args:
        stored: of one scale and task each, at least one.
    """
    ordered = sorted(stored, key=lambda cells: tables.scale_order(cells.record.scale))
    pictures = [
        {
            "file": f"{cells.name}.svg",
            "title": f"{task_title(cells.record.task)}, {cells.record.scale} scale",
            "warnings": ". ".join(warnings(cells)),
            "run": _run(cells.record),
            "command": shlex.join(["python", "-m", "tlstm.train", *cells.record.overrides]),
        }
        for cells in ordered
    ]
    return rendered("memory_cells.md.jinja", pictures=pictures)


def _run(record: Record) -> str:
    """Return the run of a picture in words."""
    return (
        f"{record.label}, L = {record.depth}, M = {record.channels}, seed {record.seed}, after "
        f"{tables.people(record.samples)} samples: {_quality(record)}."
    )
