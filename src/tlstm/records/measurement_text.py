"""Measurements in words and numbers, for the terminal and the page alike."""

from collections.abc import Callable

from tlstm.records.measurement import Measurement, Pass

MEBIBYTE = 2**20
UNKNOWN = "—"


def microseconds(value: float | None) -> str:
    """A time to four digits, without an exponent."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def median(found: Pass | None) -> str:
    """Microseconds per timestep of a pass."""
    return microseconds(found.timing.median if found and found.timing else None)


def quartiles(measurement: Measurement) -> str:
    """Those of the pass that counts."""
    timing = measurement.main.timing
    return f"{microseconds(timing.low)}–{microseconds(timing.high)}" if timing else UNKNOWN


def mebibytes(value: int | None) -> str:
    """A peak of memory."""
    return number(None if value is None else value / MEBIBYTE, ".3g")


def number(value: float | None, form: str) -> str:
    """A number in a form, or a dash."""
    return UNKNOWN if value is None else format(value, form)


COLUMNS: dict[str, Callable[[Measurement], str]] = {
    "forward µs": lambda m: median(m.forward),
    "fwd+bwd µs": lambda m: median(m.training),
    "quartiles": quartiles,
    "tokens/s": lambda m: number(m.tokens_per_second, ".3g"),
    "MiB": lambda m: mebibytes(m.main.peak_memory),
    "floor": lambda m: number(m.of_floor, ".1%"),
    "first s": lambda m: number(m.main.first_call_seconds, ".2g"),
    "capture s": lambda m: number(m.main.capture_seconds, ".2g"),
    "output err": lambda m: f"{m.errors.output:.1e}" if m.errors else UNKNOWN,
    "grad err": lambda m: f"{m.errors.gradient:.1e}" if m.errors else UNKNOWN,
}


def case_title(measurement: Measurement) -> str:
    """The case, its sizes, target and floor."""
    case, floor = measurement.case, measurement.floor
    text = (
        f"{case.suite} {case.name}: {case.label}, P = {case.tensor_size}, B = {case.batch_size}, "
        f"T = {case.timesteps}; floor {measurement.least:.3g} µs"
    )
    if floor.least_products is not None:
        text += f", matrix products alone {floor.least_products:.4g} µs"
    if case.target is not None:
        text += f", must {case.target.must:g} µs, aim {case.target.aim:g} µs on one H200"
    return text
