"""The page of the benchmark: its tables, machine by machine, and all measurements as one table.

Everything here is text made of measurements; nothing is written.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

import jinja2
import pandas as pd

from tlstm.records.measurement import (
    OURS,
    UNKNOWN,
    Implementation,
    Measurement,
    format_microseconds,
)
from tlstm.records.models import MODELS, TASKS
from tlstm.records.table import distinct
from tlstm.reporting.pages import TEMPLATES, markdown
from tlstm.reporting.runtime import (
    TARGET_DEVICE,
    Group,
    Machine,
    Row,
    by_task,
    fastest,
    groups,
    machines,
    ours,
    ratio,
    requirements,
    task_title,
    title,
)

MEBIBYTE = 2**20


def page(measurements: Sequence[Measurement], pictures: Sequence[str]) -> str:
    """Return the page in Markdown.

    Args:
        measurements: those that are shown, at least one.
        pictures: the names of the pictures, without suffixes.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    found = machines(measurements)
    return environment.get_template("runtime.md.jinja").render(
        machines=[_machine(machine, shown, pictures) for machine, shown in found.items()]
    )


def _machine(
    machine: Machine, shown: Sequence[Measurement], pictures: Sequence[str]
) -> dict[str, object]:
    """Return what the template shows of one machine."""
    found = groups(shown)
    targets = groups(shown, "targets")
    required = requirements(found)
    return {
        "name": machine.device,
        "quick": machine.quick,
        "system": distinct(each.hardware.system for each in shown),
        "threads": shown[0].hardware.threads,
        "versions": distinct(
            ", ".join(
                f"{name} {each.versions[name]}"
                for name in ("torch", "triton", "cuda")
                if name in each.versions
            )
            for each in shown
        ),
        "commits": distinct((each.commit or "no commit")[:12] for each in shown),
        "dates": distinct(f"{each.run:%Y-%m-%d}" for each in shown),
        "rate": f"{shown[0].roofline.rate / 1e12:.3g}",
        "rate_precision": shown[0].roofline.rate_precision,
        "pictures": [name for name in pictures if name.rpartition("-")[0] == machine.slug],
        "times": _range(best.microseconds for best in map(ours, targets) if best),
        "gains": _range(ratio(fastest(g, ["autograd"]), ours(g)) for g in targets),
        "cases": len(targets),
        "held": sum(row["hold"] == row["cases"] for row in required),
        "all": len(required),
        "requirements": _table(required),
        "targets": _table(target_row(group) for group in targets),
        "tasks": list(_tasks(groups(shown, "tasks"))),
        "sizes": _table(size_row(group) for group in groups(shown, "size")),
        "steps": _table(step_row(m) for m in shown if m.case.suite == "step" and not m.failure),
        "failures": dict.fromkeys(
            f"{m.competitor.name} on {m.case.name}: {m.failure}" for m in shown if m.failure
        ),
    }


def _table(rows: Iterable[Row]) -> str:
    """Return rows as a table in Markdown, without columns that are unknown; "" if none."""
    table = pd.DataFrame(list(rows))
    known = [name for name in table if set(table[name]) - {UNKNOWN}]
    return markdown(table[known]) if len(table) else ""


def _range(values: Iterable[float | None]) -> str:
    """Return the smallest and the largest: "10.4 to 1,814"; "" if there is none."""
    known = [value for value in values if value is not None]
    return (
        " to ".join(
            f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
            for value in (min(known), max(known))
        )
        if known
        else ""
    )


def _peer(group: Group, implementations: Sequence[Implementation]) -> str:
    """Return the time of the fastest of some peers, and its ratio to ours."""
    peer = fastest(group, implementations)
    if peer is None:
        return UNKNOWN
    times = ratio(peer, ours(group))
    text = f"{format_microseconds(peer.microseconds)} ({peer.competitor.name})"
    return text if times is None else f"{text}, {times:.2g} ×"


def target_row(group: Group) -> Row:
    """Return a row of the table of targets; times are microseconds per timestep."""
    first, best = group[0], ours(group)
    target, roofline = first.case.target, format_microseconds(first.roofline.training)
    share = best.roofline_share if best else None
    return {
        "configuration": title(first),
        "roofline (share)": roofline if share is None else f"{roofline} ({share:.0%})",
        "products alone": format_microseconds(first.roofline.products),
        "required, goal": f"{target.required:g}, {target.goal:g}"
        if target and TARGET_DEVICE in first.hardware.device
        else UNKNOWN,
        "ours": f"**{format_microseconds(best.microseconds)}** ({best.competitor.name})"
        if best
        else UNKNOWN,
        "autograd": _peer(group, ["autograd"]),
        "torch.compile": _peer(group, ["torch.compile"]),
        "nn.LSTM": _peer(group, ["nn.LSTM"]),
    }


def size_row(group: Group) -> Row:
    """Return a row of the table over P; times are microseconds per timestep."""
    first, best = group[0], ours(group)
    return {
        "M": str(first.case.channels),
        "P": str(first.case.tensor_size),
        "ours": format_microseconds(best.microseconds if best else None),
        "autograd": _peer(group, ["autograd"]),
        "nn.LSTM of P layers": _peer(group, ["nn.LSTM"]),
    }


def step_row(measurement: Measurement) -> Row:
    """Return a row of the table of single timesteps, forward alone."""
    case, found = measurement.case, measurement.forward
    timing, memory, kernels = found.timing, found.peak_memory, found.kernels
    return {
        "configuration": f"{case.label}, L = {case.depth}, M = {case.channels}",
        "by": measurement.competitor.name,
        "µs": format_microseconds(measurement.microseconds),
        "quartiles": "–".join(map(format_microseconds, timing.quartiles)) if timing else UNKNOWN,
        "MiB": UNKNOWN if memory is None else f"{memory / MEBIBYTE:.3g}",
        "kernels": UNKNOWN if kernels is None else f"{kernels:.3g}",
    }


def _tasks(shown: Sequence[Group]) -> Iterator[Row]:
    """Yield a table for every task: ours, autograd or nn.LSTM at every depth."""
    whose: tuple[Sequence[Implementation], ...] = (OURS, ["autograd"], ["nn.LSTM"])
    for task in TASKS:
        rows = []
        for model in MODELS:
            for implementations in whose:
                line = [fastest(group, implementations) for group in by_task(shown, task, model)]
                best = {each.case.depth: each for each in line if each is not None}
                if best:
                    rows.append(_depth_row(MODELS[model].label, best, TASKS[task].depths))
        if rows:
            yield {"title": task_title(task), "rows": _table(rows)}


def _depth_row(label: str, best: dict[int, Measurement], depths: Sequence[int]) -> Row:
    times = {depth: best[depth].microseconds if depth in best else None for depth in depths}
    return {
        "configuration": label,
        "by": distinct(each.competitor.name for each in best.values()),
        **{f"L = {depth}": format_microseconds(time) for depth, time in times.items()},
    }


def flat(measurements: Sequence[Measurement]) -> str:
    """Return all measurements as one flat table, comma-separated values."""
    rows = [_flat_row(each) for each in measurements]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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
            f"{kind}_low": timing and timing.quartiles[0],
            f"{kind}_high": timing and timing.quartiles[1],
            f"{kind}_repeats": timing and timing.repeats,
            f"{kind}_peak_memory": found and found.peak_memory,
            f"{kind}_kernels": found and found.kernels,
            f"{kind}_first_call_seconds": found and found.first_call_seconds,
            f"{kind}_capture_seconds": found and found.capture_seconds,
        }
    return row | {
        "tokens_per_second": each.tokens_per_second,
        "roofline_share": each.roofline_share,
        "roofline_microseconds": each.roofline_microseconds,
        "products_microseconds": each.roofline.products,
        "output_error": each.errors and each.errors.output,
        "gradient_error": each.errors and each.errors.gradient,
        "worst_gradient": each.errors and each.errors.worst,
        "failure": each.failure,
        "commit": each.commit,
    }
