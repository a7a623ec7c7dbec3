"""What the benchmark's pictures look like: bars beside peers, runtime over depth and over size.

Pure functions from measurements to figures, made under `tlstm.reporting.drawing.style`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from tlstm.records.measurement import OURS, Implementation, Measurement
from tlstm.records.measurement_text import microseconds
from tlstm.records.models import MODELS, TASK_TITLES, TASKS
from tlstm.reporting.runtime_summary import TARGET_DEVICE, Group, fastest, groups, ours, title
from tlstm.reporting.style import GREY, RED, STYLES, Look, style

PANEL_TITLES = {"mnist": "MNIST and permuted MNIST"}  # of the same sizes
OURS_COLOR, PEER_COLOR, OTHER_COLOR = "#D55E00", "#000000", "#0072B2"
CAPTURED: dict[bool, str] = {True: ", CUDA graph", False: ""}


class Machine(NamedTuple):
    """Measurements that can be shown together.

    Attributes:
        device: its name.
        quick: whether sequences were short and large cases left out.
    """

    device: str
    quick: bool

    @property
    def slug(self) -> str:
        """For names of files: "nvidia-h200", "amd-epyc-quick"."""
        kept = "".join(sign if sign.isalnum() else " " for sign in self.device.lower())
        return "-".join([*kept.split(), *(["quick"] if self.quick else [])])


def machines(measurements: Iterable[Measurement]) -> dict[Machine, list[Measurement]]:
    """Measurements by machine: GPUs first, what was measured quickly last."""
    found: dict[Machine, list[Measurement]] = {}
    for each in measurements:
        found.setdefault(Machine(each.hardware.device, each.quick), []).append(each)
    return {key: found[key] for key in sorted(found, key=lambda key: (key.quick, key.device))}


def pictures(machine: Machine, measurements: Sequence[Measurement]) -> dict[str, Figure]:
    """The figures of one machine by the names of their files; those that have something to show."""
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
    """Forward and backward of the configurations that have a target, ours beside the peers."""
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    with style():
        figure = Figure(figsize=(5.4 * columns, 1.9 * rows + 0.9), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, group in zip(axes, shown, strict=False):
            _draw_bars(panel, group)
        for panel in axes[len(shown) :]:
            panel.set_axis_off()
        for panel in axes[max(len(shown) - columns, 0) : len(shown)]:
            panel.set_xlabel("µs per timestep, forward + backward")
        heading = "Forward and backward beside the peers"
        if TARGET_DEVICE in machine.device:
            heading += " (lines: must, and dotted: aim)"
        _title(figure, machine, heading)
    return figure


def over_depth(machine: Machine, shown: list[Group]) -> Figure:
    """The runtime panels of Figures 3 to 5: every configuration at every depth, task by task."""
    tasks = [task for task in TASKS if any(group[0].case.task == task for group in shown)]
    with style():
        figure = Figure(figsize=(2.9 * len(tasks) + 1.9, 3.2), layout="constrained")
        axes = figure.subplots(1, len(tasks), squeeze=False).flatten()
        for panel, task in zip(axes, tasks, strict=True):
            panel.set_title(PANEL_TITLES.get(task, TASK_TITLES[task]))
            for model in MODELS:
                line = [g for g in shown if (g[0].case.task, g[0].case.model) == (task, model)]
                _draw_depths(panel, line)
            panel.set_xlabel("depth L")
            panel.set_xticks(sorted({g[0].case.depth for g in shown if g[0].case.task == task}))
            panel.set_ylim(bottom=0)
        axes[0].set_ylabel("ms per timestep of an example")
        handles = {
            label: handle
            for panel in axes
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
        _title(figure, machine, "Runtime of one forward and backward pass (Figures 3 to 5)")
    return figure


def over_size(machine: Machine, shown: list[Group]) -> Figure:
    """Runtime over P at a fixed number of parameters, beside stacks of as many layers."""
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
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter("{x:g}")
        axes[0].set_ylabel("µs per timestep, forward + backward")
        axes[-1].legend()
        _title(figure, machine, "Deeper at the same number of parameters")
    return figure


def _draw_bars(panel: Axes, group: Group) -> None:
    case = group[0].case
    entries = [(name, value, color) for name, value, color in _entries(group) if value]
    names, values, colors = zip(*reversed(entries), strict=True)
    panel.barh(names, values, color=colors, height=0.7)
    for place, value in enumerate(values):
        panel.annotate(
            f" {microseconds(value)}", (value, place), va="center", fontsize=7.5, clip_on=False
        )
    panel.set_xscale("log")
    panel.set_xlim(min(values) / 2, max(values) * 3)
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_axisbelow(True)
    panel.set_title(title(group[0]), fontsize=8.5)
    if case.target is not None and TARGET_DEVICE in group[0].hardware.device:
        for limit, line in ((case.target.must, "-"), (case.target.aim, ":")):
            panel.axvline(limit, color=RED, linewidth=1, linestyle=line, zorder=0.9)


def _entries(group: Group) -> list[tuple[str, float | None, str]]:
    """Name, microseconds and colour of every bar, ours first."""
    found: list[tuple[str, float | None, str]] = []
    for implementation in OURS:
        for captured in (True, False):
            best = fastest(group, [implementation], captured)
            name = f"{implementation}{CAPTURED[captured]}"
            found.append((name, best.microseconds if best else None, OURS_COLOR))
    found.append(("matrix products alone", group[0].floor.least_products, GREY))
    peers: tuple[tuple[Implementation, str], ...] = (
        ("torch.compile", OTHER_COLOR),
        ("autograd", OTHER_COLOR),
        ("nn.LSTM", PEER_COLOR),
    )
    for peer, color in peers:
        for captured in (True, False):
            best = fastest(group, [peer], captured)
            name = f"{peer}{CAPTURED[captured]}"
            found.append((name, best.microseconds if best else None, color))
    return found


def _draw_depths(panel: Axes, line: Sequence[Group]) -> None:
    """One configuration: by the fastest of ours, a stack by the fastest nn.LSTM."""
    points = []
    for group in line:
        case = group[0].case
        best = fastest(group, ["nn.LSTM"]) if case.is_stack else ours(group)
        if best is not None and best.microseconds is not None:
            points.append((case.depth, best.microseconds / 1e3 / case.batch_size))
    if points:
        case = line[0][0].case
        panel.plot(*zip(*sorted(points), strict=True), label=case.label, **STYLES[case.model])


def _draw_sizes(panel: Axes, shown: Sequence[Group]) -> None:
    lines: tuple[tuple[str, Sequence[Implementation], Look], ...] = (
        ("tLSTM, ours", OURS, {"color": OURS_COLOR, "marker": "o"}),
        ("tLSTM, autograd", ("autograd",), {"color": OTHER_COLOR, "marker": "v"}),
        ("nn.LSTM of P layers", ("nn.LSTM",), {"color": PEER_COLOR, "marker": "s"}),
    )
    for label, implementations, look in lines:
        best = [fastest(group, implementations) for group in shown]
        points = [(m.case.tensor_size, m.microseconds) for m in best if m and m.microseconds]
        if points:
            panel.plot(*zip(*sorted(points), strict=True), label=label, **look)


def _title(figure: Figure, machine: Machine, text: str) -> None:
    """What is shown and on what; in red where it was measured quickly."""
    heading = f"{text}\n{machine.device}"
    if machine.quick:
        heading += "\nQUICK: short sequences, without the large cases"
    figure.suptitle(heading, fontsize=10.5, color=RED if machine.quick else "#000000")
