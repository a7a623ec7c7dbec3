"""The pictures of sweeps: what L or M does (Figure 3 among them), and what each part does.

Pure functions from records to figures, as in `tlstm.reporting.style`.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tlstm.records import table as tables
from tlstm.records.measures import measure_of
from tlstm.records.schema import Record
from tlstm.reporting.style import (
    PEOPLE,
    Look,
    draw_heading,
    draw_legend,
    draw_means,
    draw_runtime,
    line_styles,
    make_panels,
    one_picture,
    seeds_in_words,
    style,
)

EXPLANATION = "points are means, bars the range"
FAR = 1.5  # times the least bits per character: of runs that never left those of a guess [ours]
Panel = Callable[[Axes, pd.DataFrame, str, Mapping[str, Look]], None]


def sweep_figure(
    records: Sequence[Record], along: str, times: pd.DataFrame | None = None
) -> Figure:
    """Draw a task's measure and the runtime against L or M, one line per model.

    Between them stand the samples to the threshold, where a task can be solved. Records, times and
    errors are those of `one_picture`.
    """
    table = one_picture(records, along, times)
    styles = line_styles(table)
    drawn: list[Panel] = [_draw_best, draw_runtime]
    if tables.is_solvable(table):
        drawn.insert(1, _draw_samples)
    with style():
        figure, panels, legend = make_panels(len(drawn))
        for panel, draw in zip(panels, drawn, strict=True):
            draw(panel, table, along, styles)
        draw_legend(legend, styles)
        draw_heading(figure, table, seeds_in_words(table, EXPLANATION), False)
    return figure


def _draw_best(panel: Axes, table: pd.DataFrame, along: str, styles: Mapping[str, Look]) -> None:
    """Draw the best on the validation samples.

    Bits per character of a run that never left those of a guess lie above the axis, with an arrow;
    a run that predicts what it has seen is left out.
    """
    measure = measure_of(table["task"].iloc[0])
    panel.set_title(f"best {measure.name}")
    panel.set_ylabel(measure.title)
    values = measure.of(table, "best").where(~table["sees_ahead"])
    if not measure.higher_is_better and values.notna().any():
        learnt = values[values <= FAR * values.min()]
        margin = 0.1 * (learnt.max() - learnt.min()) + 0.01
        _point_beyond(panel, values[values > learnt.max()], table, along, styles)
        panel.set_ylim(learnt.min() - margin, learnt.max() + 2 * margin)
        values = values.where(values <= learnt.max())
    draw_means(panel, values, table, along, styles)


def _point_beyond(
    panel: Axes, beyond: pd.Series, table: pd.DataFrame, along: str, styles: Mapping[str, Look]
) -> None:
    """Mark values above the axis at its top, with an arrow, from left to right by their number."""
    for place, runs in table.loc[beyond.index].groupby(along):
        for step, (line, of_line) in enumerate(runs.groupby("line", sort=False)):
            values = beyond[of_line.index]
            panel.annotate(
                f"{values.mean():.1f} ↑" + (f" ({len(values)} seeds)" if len(values) > 1 else ""),
                (float(str(place)), 1),
                (-2, -9 - 9 * step),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right" if place == table[along].max() else "center",
                size=7,
                color=styles[str(line)]["color"],
            )


def _draw_samples(panel: Axes, table: pd.DataFrame, along: str, styles: Mapping[str, Look]) -> None:
    """Draw samples to the threshold; runs that did not pass it are hollow, where they ended."""
    threshold = tables.percent(float(table["threshold"].iloc[0]))
    panel.set_title(f"samples to {threshold} (hollow: not within)")
    panel.set_ylabel("training samples")
    passed = table["samples_to_threshold"].astype(float)
    ends = passed.fillna(table["samples"]).clip(lower=1)
    panel.set_yscale("log")
    panel.set_ylim(ends.min() / 1.5, ends.max() * 1.5)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(PEOPLE)
    panel.yaxis.set_minor_formatter(NullFormatter())
    draw_means(panel, passed, table, along, styles)
    for line, runs in table[passed.isna()].groupby("line", sort=False):
        look = styles[str(line)] | {"linestyle": "", "markerfacecolor": "white"}
        panel.plot(runs[along], runs["samples"], label="_not within", **look)


def ablation_figure(records: Sequence[Record], times: pd.DataFrame | None = None) -> Figure:
    """Draw the same, a row for every combination of parts."""
    table = one_picture(records, "depth", times)
    measure = measure_of(table["task"].iloc[0])
    shown = {f"best {measure.title}": measure.of(table, "best")}
    if tables.is_solvable(table):
        threshold = tables.percent(float(table["threshold"].iloc[0]))
        samples = table["samples_to_threshold"].astype(float) / 1000
        shown[f"thousand samples to {threshold}"] = samples
    shown["µs per timestep of a batch"] = table["microseconds"]
    rows = list(dict.fromkeys(table["line"]))[::-1]
    with style():
        figure = Figure(figsize=(10, 1 + 0.22 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True)
        for panel, (title, values) in zip(panels, shown.items(), strict=True):
            panel.set_title(title)
            _draw_rows(panel, values, table, rows)
        for panel in panels[1:]:
            panel.set_xlim(left=0)
        panels[0].set_yticks(range(len(rows)), rows)
        draw_heading(figure, table, seeds_in_words(table, EXPLANATION), False)
    return figure


def _draw_rows(panel: Axes, values: pd.Series, table: pd.DataFrame, rows: list[str]) -> None:
    """Draw mean and range over seeds, a row for every line."""
    summary = values.groupby(table["line"]).agg(["mean", "min", "max"]).reindex(rows)
    mean, lowest, highest = summary.to_numpy(dtype=float).T
    panel.errorbar(
        mean, range(len(rows)), xerr=[mean - lowest, highest - mean], fmt="o", color="#0072B2"
    )
