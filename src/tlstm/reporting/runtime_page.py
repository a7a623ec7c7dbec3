"""The page of the benchmark: tables of what was measured, machine by machine.

Everything here is text made of measurements; nothing is written.
"""

import csv
import io
from collections.abc import Iterable, Sequence

import jinja2
import pandas as pd

from tlstm.records.measurement import Implementation, Measurement
from tlstm.records.measurement_text import COLUMNS, UNKNOWN, microseconds, number
from tlstm.records.models import MODELS, TASK_TITLES, TASKS
from tlstm.records.table import distinct
from tlstm.reporting.page import TEMPLATES, markdown
from tlstm.reporting.runtime import PANEL_TITLES, Machine, machines
from tlstm.reporting.runtime_summary import Group, checks, fastest, groups, ours, ratio, title

Row = dict[str, str]


def page(measurements: Sequence[Measurement], pictures: Sequence[str]) -> str:
    """The page, in Markdown.

    Args:
        measurements: those that are shown, at least one.
        pictures: the names of the pictures that are there, without suffixes.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    found = machines(measurements)
    return environment.get_template("runtime.md.jinja").render(
        machines=[_machine(machine, shown, pictures) for machine, shown in found.items()]
    )


def flat(measurements: Sequence[Measurement]) -> str:
    """All measurements as one flat table, comma-separated values."""
    rows = [_flat_row(each) for each in measurements]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _machine(
    machine: Machine, shown: Sequence[Measurement], pictures: Sequence[str]
) -> dict[str, object]:
    """What the page says about one machine."""
    first = shown[0].hardware
    asked = checks(shown)
    return {
        "name": machine.device,
        "quick": machine.quick,
        "system": distinct(each.hardware.system for each in shown),
        "threads": first.threads,
        "versions": distinct(
            ", ".join(f"{name} {version}" for name, version in sorted(each.versions.items()))
            for each in shown
        ),
        "commits": distinct(
            (each.commit[:12] if each.commit else "outside of a repository")
            + (" with uncommitted changes" if each.modified else "")
            for each in shown
        ),
        "dates": distinct(f"{each.run:%Y-%m-%d %H:%M} UTC" for each in shown),
        "rate": f"{shown[0].floor.rate / 1e12:.3g}",
        "rate_precision": shown[0].floor.rate_precision,
        "pictures": [name for name in pictures if name.rpartition("-")[0] == machine.slug],
        "held": sum(check.holds for check in asked),
        "asked": len(asked),
        "checks": _table(
            {
                "asked": check.asked,
                "of": check.case,
                "measured": check.measured,
                "holds": "yes" if check.holds else "**no**",
            }
            for check in asked
        ),
        "targets": _table(target_row(group) for group in groups(shown, "targets")),
        "tasks": _tasks(shown),
        "sizes": _table(size_row(group) for group in groups(shown, "size")),
        "steps": _table(
            {"case": title(each), "competitor": each.competitor.name, **_columns(each)}
            for each in shown
            if each.case.suite == "step" and each.failure is None
        ),
        "everything": _table(
            {
                "case": title(each),
                "T": str(each.case.timesteps),
                "competitor": each.competitor.name,
                **_columns(each),
                "kernels": number(each.main.kernels, ".3g"),
            }
            for each in shown
            if each.failure is None and each.case.suite == "targets"
        ),
        "failures": distinct(
            (
                f"{each.competitor.name} on {each.case.name}: {each.failure}"
                for each in shown
                if each.failure
            ),
            between="\n",
        ).splitlines(),
    }


def _table(rows: Iterable[Row]) -> str:
    """Rows as a table in Markdown, without the columns in which nothing is known; "" if none."""
    table = pd.DataFrame(list(rows))
    known = [name for name in table if set(table[name]) - {UNKNOWN}]
    return markdown(table[known]) if len(table) else ""


def _columns(measurement: Measurement) -> Row:
    return {name: show(measurement) for name, show in COLUMNS.items()}


def _beside(
    group: Group, implementations: Sequence[Implementation], best: Measurement | None
) -> str:
    """The fastest of some competitors, and how many times ours it takes."""
    peer = fastest(group, implementations)
    if peer is None:
        return UNKNOWN
    times = ratio(peer, best)
    text = f"{microseconds(peer.microseconds)} ({peer.competitor.name})"
    return text if times is None else f"{text}, {times:.2g} ×"


def target_row(group: Group) -> Row:
    """One line of the table of targets; times are microseconds per timestep."""
    first, best = group[0], ours(group)
    case, floor = first.case, first.floor
    rows, inner, columns = case.product
    return {
        "configuration": title(first),
        "rows×K×N": f"{rows}×{inner}×{columns}",
        "floor": microseconds(floor.training),
        "products alone": microseconds(floor.least_products),
        "must, aim (H200)": f"{case.target.must:g}, {case.target.aim:g}"
        if case.target
        else UNKNOWN,
        "ours": UNKNOWN
        if best is None
        else f"**{microseconds(best.microseconds)}** ({best.competitor.name})",
        "of the floor": UNKNOWN if best is None else number(best.of_floor, ".0%"),
        "autograd": _beside(group, ["autograd"], best),
        "torch.compile": _beside(group, ["torch.compile"], best),
        "nn.LSTM": _beside(group, ["nn.LSTM"], best),
    }


def size_row(group: Group) -> Row:
    """One line of the table over P; times are microseconds per timestep."""
    first, best = group[0], ours(group)
    return {
        "M": str(first.case.channels),
        "P": str(first.case.tensor_size),
        "ours": microseconds(best.microseconds if best else None),
        "autograd": _beside(group, ["autograd"], best),
        "nn.LSTM of P layers": _beside(group, ["nn.LSTM"], best),
    }


def _tasks(shown: Sequence[Measurement]) -> list[dict[str, str]]:
    """A table for every task: milliseconds per timestep of a single example at every depth."""
    found = groups(shown, "tasks")
    return [
        {"title": PANEL_TITLES.get(task, TASK_TITLES[task]), "rows": _table(_depths(found, task))}
        for task in TASKS
        if any(group[0].case.task == task for group in found)
    ]


def _depths(found: Sequence[Group], task: str) -> list[Row]:
    """Configuration by configuration: ours, and plain autograd below it."""
    rows = []
    for model in MODELS:
        line = {
            group[0].case.depth: group
            for group in found
            if (group[0].case.task, group[0].case.model) == (task, model)
        }
        who: tuple[Implementation, ...]
        for who in (("triton", "pytorch"), ("autograd",), ("nn.LSTM",)):
            best = {depth: fastest(group, who) for depth, group in line.items()}
            if any(best.values()):
                rows.append(_depth_row(MODELS[model].label, best, TASKS[task].depths))
    return rows


def _depth_row(label: str, best: dict[int, Measurement | None], depths: Sequence[int]) -> Row:
    names = distinct((each.competitor.name for each in best.values() if each), "; ")
    return {
        "configuration": label,
        "by": names,
        **{f"L = {depth}": _milliseconds(best.get(depth)) for depth in depths},
    }


def _milliseconds(measurement: Measurement | None) -> str:
    """Of a single example, as the paper's figures have it."""
    if measurement is None or measurement.microseconds is None:
        return UNKNOWN
    return f"{measurement.microseconds / 1e3 / measurement.case.batch_size:.3g}"


def _flat_row(each: Measurement) -> dict[str, object]:
    row: dict[str, object] = {
        "run": f"{each.run:%Y-%m-%dT%H:%M:%SZ}",
        "device": each.hardware.device,
        "quick": each.quick,
        **each.case.model_dump(exclude={"target"}),
        **each.competitor.model_dump(),
    }
    for kind, found in (("forward", each.forward), ("training", each.training)):
        timing = found.timing if found else None
        row |= {
            f"{kind}_microseconds": timing and timing.median,
            f"{kind}_low": timing and timing.low,
            f"{kind}_high": timing and timing.high,
            f"{kind}_repeats": timing and timing.repeats,
            f"{kind}_peak_memory": found and found.peak_memory,
            f"{kind}_kernels": found and found.kernels,
            f"{kind}_first_call_seconds": found and found.first_call_seconds,
            f"{kind}_capture_seconds": found and found.capture_seconds,
        }
    return row | {
        "tokens_per_second": each.tokens_per_second,
        "of_floor": each.of_floor,
        "floor_microseconds": each.least,
        "products_microseconds": each.floor.products,
        "output_error": each.errors and each.errors.output,
        "gradient_error": each.errors and each.errors.gradient,
        "worst_gradient": each.errors and each.errors.worst,
        "failure": each.failure,
        "commit": each.commit,
    }
