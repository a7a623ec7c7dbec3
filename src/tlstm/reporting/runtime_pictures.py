"""The benchmark's pictures: bars with the peers, runtime over depth and over size.

Pure functions from measurements to figures, made under `tlstm.reporting.style.style`.
"""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tlstm.records.measurement import OURS, Implementation, Measurement, format_microseconds
from tlstm.records.models import MODELS, TASKS
from tlstm.reporting.runtime import (
    TARGET_DEVICE,
    Group,
    Machine,
    fastest,
    groups,
    task_title,
    title,
)
from tlstm.reporting.style import GREY, RED, STYLES, Look, style

OURS_COLOR, PEER_COLOR, OTHER_COLOR = "#D55E00", "#000000", "#0072B2"
PEERS: tuple[tuple[Implementation, str], ...] = (
    ("torch.compile", OTHER_COLOR),
    ("autograd", OTHER_COLOR),
    ("nn.LSTM", PEER_COLOR),
)
BARS = 7  # that a panel has room for
TIME = "µs per timestep of a batch"


def pictures(machine: Machine, measurements: Sequence[Measurement]) -> dict[str, Figure]:
    """Return the figures of one machine by the names of their files, without empty ones."""
    draw: dict[str, Callable[[Machine, list[Group]], Figure]] = {
        "targets": bars,
        "tasks": over_depth,
        "size": over_size,
    }
    found = {suite: groups(measurements, suite) for suite in draw}
    return {
        f"{machine.slug}-{suite}": draw[suite](machine, shown)
        for suite, shown in found.items()
        if any(each.microseconds for group in shown for each in group)
    }


def bars(machine: Machine, shown: list[Group]) -> Figure:
    """Draw forward and backward of the configurations with a target, ours and the peers."""
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    more = max(sum(bool(value) for _, value, _ in _entries(group)) for group in shown) - BARS
    height = 1.9 + 0.2 * max(more, 0)
    with style():
        figure = Figure(figsize=(5.4 * columns, height * rows + 0.9), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, group in zip(axes, shown, strict=False):
            _draw_bars(panel, group)
        for panel in axes[len(shown) :]:
            panel.set_axis_off()
        for panel in axes[max(len(shown) - columns, 0) : len(shown)]:
            panel.set_xlabel(f"{TIME}, forward + backward")
        heading = "Forward and backward: ours and the peers"
        if TARGET_DEVICE in machine.device:
            heading += " (lines: required, and dotted: goal)"
        _title(figure, machine, heading)
    return figure


def over_depth(machine: Machine, shown: list[Group]) -> Figure:
    """Draw every configuration at every depth, task by task, as Figures 3 to 5 do."""
    tasks = [task for task in TASKS if any(group[0].case.task == task for group in shown)]
    with style():
        figure = Figure(figsize=(2.9 * len(tasks) + 1.9, 3.2), layout="constrained")
        axes = figure.subplots(1, len(tasks), squeeze=False).flatten()
        for panel, task in zip(axes, tasks, strict=True):
            panel.set_title(task_title(task))
            for model in MODELS:
                place = task, model
                line = [g for g in shown if (g[0].case.task, g[0].case.model) == place]
                _draw_depths(panel, line)
            panel.set_xlabel("depth L")
            panel.set_xticks(sorted({g[0].case.depth for g in shown if g[0].case.task == task}))
            panel.set_ylim(bottom=0)
        axes[0].set_ylabel(TIME)
        handles = {
            label: handle
            for panel in axes
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
        _title(figure, machine, "Runtime of one forward and backward pass (Figures 3 to 5)")
    return figure


def over_size(machine: Machine, shown: list[Group]) -> Figure:
    """Draw the runtime over P at a fixed number of parameters, and stacks of as many layers."""
    channels = sorted({group[0].case.channels for group in shown})
    with style():
        figure = Figure(figsize=(4.2 * len(channels), 3.4), layout="constrained")
        axes = figure.subplots(1, len(channels), squeeze=False).flatten()
        for panel, width in zip(axes, channels, strict=True):
            of_width = [group for group in shown if group[0].case.channels == width]
            panel.set_title(f"2D tLSTM, M = {width}, B = {of_width[0][0].case.batch_size}")
            _draw_sizes(panel, of_width)
            panel.set_xlabel("tensor size P (layers, of nn.LSTM)")
            panel.set_xticks(sorted({group[0].case.tensor_size for group in of_width}))
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel(TIME)
        axes[-1].legend()
        _title(figure, machine, "Forward and backward: deeper at the same number of parameters")
    return figure


def _draw_bars(panel: Axes, group: Group) -> None:
    case = group[0].case
    entries = [(name, value, color) for name, value, color in _entries(group) if value]
    names, values, colors = zip(*reversed(entries), strict=True)
    panel.barh(names, values, color=colors, height=0.7)
    for place, value in enumerate(values):
        text = f" {format_microseconds(value)}"
        shade = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # over the limits' lines
        panel.annotate(text, (value, place), va="center", fontsize=7.5, clip_on=False, bbox=shade)
    panel.set_xscale("log")
    panel.set_xlim(min(values) / 2, max(values) * 3)
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_axisbelow(True)
    panel.set_title(title(group[0]), fontsize=8.5)
    if case.target is not None and TARGET_DEVICE in group[0].hardware.device:
        for limit, line in ((case.target.required, "-"), (case.target.goal, ":")):
            panel.axvline(limit, color=RED, linewidth=1, linestyle=line, zorder=0.9)


def _entries(group: Group) -> list[tuple[str, float | None, str]]:
    """Return name, microseconds and colour of every bar, ours first."""
    ours = [bar for name in OURS for bar in _both(group, name, OURS_COLOR)]
    peers = [bar for name, color in PEERS for bar in _both(group, name, color)]
    return [*ours, ("matrix products alone", group[0].roofline.products, GREY), *peers]


def _both(group: Group, name: Implementation, color: str) -> list[tuple[str, float | None, str]]:
    """Return the bars of an implementation with and without a CUDA graph."""
    found = {", CUDA graph": fastest(group, [name], True), "": fastest(group, [name], False)}
    return [(name + how, best.microseconds if best else None, color) for how, best in found.items()]


def _draw_depths(panel: Axes, line: Sequence[Group]) -> None:
    """Draw one configuration by the fastest of ours, a stack by the fastest nn.LSTM."""
    stack = any(group[0].case.is_stack for group in line)
    points = _points([fastest(group, ["nn.LSTM"] if stack else OURS) for group in line], "depth")
    if points:
        case = line[0][0].case
        panel.plot(*zip(*points, strict=True), label=case.label, **STYLES[case.model])


def _points(found: Sequence[Measurement | None], size: str) -> list[tuple[int, float]]:
    return sorted((getattr(m.case, size), m.microseconds) for m in found if m and m.microseconds)


def _draw_sizes(panel: Axes, shown: Sequence[Group]) -> None:
    lines: tuple[tuple[str, Sequence[Implementation], Look], ...] = (
        ("tLSTM, ours", OURS, {"color": OURS_COLOR, "marker": "o"}),
        ("tLSTM, autograd", ("autograd",), {"color": OTHER_COLOR, "marker": "v"}),
        ("nn.LSTM of P layers", ("nn.LSTM",), {"color": PEER_COLOR, "marker": "s"}),
    )
    for label, implementations, look in lines:
        points = _points([fastest(group, implementations) for group in shown], "tensor_size")
        if points:
            panel.plot(*zip(*points, strict=True), label=label, **look)


def _title(figure: Figure, machine: Machine, text: str) -> None:
    """Set the heading: subject and machine, in red if measured quickly."""
    heading = f"{text}\n{machine.device}"
    if machine.quick:
        heading += "\nQUICK: short sequences, without the large cases"
    figure.suptitle(heading, fontsize=10.5, color=RED if machine.quick else "#000000")
