"""The benchmark's text on the terminal."""

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from tlstm.records.measurement import UNKNOWN, Measurement, Pass, format_microseconds

MEBIBYTE = 2**20


def _median(found: Pass | None) -> str:
    return format_microseconds(found.timing.median if found and found.timing else None)


def _quartiles(measurement: Measurement) -> str:
    timing = measurement.main.timing
    return "–".join(map(format_microseconds, timing.quartiles)) if timing else UNKNOWN


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


COLUMNS: dict[str, Callable[[Measurement], str]] = {
    "forward µs": lambda m: _median(m.forward),
    "fwd+bwd µs": lambda m: _median(m.training),
    "quartiles": _quartiles,
    "tokens/s": lambda m: _number(m.tokens_per_second, ".3g"),
    "MiB": lambda m: _number(m.main.peak_memory and m.main.peak_memory / MEBIBYTE, ".3g"),
    "roofline": lambda m: _number(m.roofline_share, ".1%"),
    "first s": lambda m: _number(m.main.first_call_seconds, ".2g"),
    "capture s": lambda m: _number(m.main.capture_seconds, ".2g"),
    "output err": lambda m: f"{m.errors.output:.1e}" if m.errors else UNKNOWN,
    "grad err": lambda m: f"{m.errors.gradient:.1e}" if m.errors else UNKNOWN,
}


def case_title(measurement: Measurement) -> str:
    """Return the case with its sizes, target and roofline."""
    case, products = measurement.case, measurement.roofline.products
    text = (
        f"{case.suite} {case.name}: {case.label}, P = {case.tensor_size}, B = {case.batch_size}, "
        f"T = {case.timesteps}; roofline {measurement.roofline_microseconds:.3g} µs"
    )
    if products is not None:
        text += f", matrix products alone {products:.4g} µs"
    if case.target is not None:
        text += f", required {case.target.required:g} µs, goal {case.target.goal:g} µs on one H200"
    return text


def case_table(measurements: Sequence[Measurement]) -> RenderableType:
    """Return all measurements of one case, without the kernels."""
    done = [each for each in measurements if each.failure is None]
    columns = {name: [show(each) for each in done] for name, show in COLUMNS.items()}
    known = {name: texts for name, texts in columns.items() if set(texts) - {UNKNOWN}}
    table = Table("competitor", title=case_title(measurements[0]), title_justify="left")
    for name in known:
        table.add_column(name, justify="right", no_wrap=True)
    for each, *texts in zip(done, *known.values(), strict=True):
        table.add_row(each.competitor.name, *texts)
    failed = [f"failed: {m.competitor.name}: {m.failure}" for m in measurements if m.failure]
    return Group(table, *failed)
