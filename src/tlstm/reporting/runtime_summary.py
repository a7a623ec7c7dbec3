"""What the measurements say: who is fastest, and whether what was asked for holds.

Everything here compares measurements of one case in one run, side by side.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tlstm.records.measurement import OURS, Implementation, Measurement, Precision
from tlstm.records.measurement_text import mebibytes, microseconds
from tlstm.records.models import TASK_TITLES

# What the layer is asked for; times are for one NVIDIA H200
TARGET_DEVICE = "H200"
FAST_TARGET = 25  # microseconds per timestep, up to which 10 times autograd is asked for
AUTOGRAD_RATIO_FAST, AUTOGRAD_RATIO = 10, 3
DEPTH_RATIO = 1.3  # of the runtime at P = 10 to the one at P = 1
ERRORS: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 2e-2}
ERROR_RATIO = 2  # to autograd's in the same precision
STEP_MICROSECONDS = 25
CPU_RATIO = 1.5  # of plain autograd's time to ours, on MNIST
CPU_MEMORY = 0.5  # of plain autograd's peak

Group = Sequence[Measurement]


class Check(NamedTuple):
    """Something that was asked for.

    Attributes:
        asked: what.
        case: of which case.
        measured: what there is.
        holds: whether that is enough.
    """

    asked: str
    case: str
    measured: str
    holds: bool


def groups(measurements: Iterable[Measurement], suite: str | None = None) -> list[Group]:
    """Measurements of the same case and run, in their order."""
    found: dict[tuple[object, ...], list[Measurement]] = {}
    for each in measurements:
        if suite in (None, each.case.suite):
            key = each.hardware.device, each.quick, each.run, each.case.suite, each.case.name
            found.setdefault(key, []).append(each)
    return list(found.values())


def fastest(
    group: Group,
    implementations: Sequence[Implementation],
    captured: bool | None = None,
) -> Measurement | None:
    """The fastest of some implementations, in any precision; None if none was measured."""
    found = [
        each
        for each in group
        if each.microseconds is not None
        and each.competitor.implementation in implementations
        and captured in (None, each.competitor.captured)
    ]
    return min(found, key=lambda each: each.microseconds or 0, default=None)


def ours(group: Group) -> Measurement | None:
    """The fastest of the layer's fast paths."""
    return fastest(group, OURS)


def ratio(slower: Measurement | None, faster: Measurement | None) -> float | None:
    """How many times the one takes the time of the other."""
    if slower is None or faster is None or not slower.microseconds or not faster.microseconds:
        return None
    return slower.microseconds / faster.microseconds


def checks(measurements: Sequence[Measurement]) -> list[Check]:
    """All that was asked for and can be said of measurements on one machine."""
    found: list[Check] = []
    on_gpu = any(each.on_gpu for each in measurements)
    shown = groups(measurements)
    for group in shown:
        if on_gpu:
            found += [*_of_targets(group), *_of_stacks(group)]
        found += _of_steps(group, on_gpu)
    found += _of_depth(measurements) if on_gpu else _of_processors(shown)
    return [*found, *_of_errors(shown)]


def _of_targets(group: Group) -> Iterator[Check]:
    first, best = group[0], ours(group)
    target = first.case.target
    if target is None or best is None or best.microseconds is None:
        return
    if TARGET_DEVICE in first.hardware.device:
        time = f"{microseconds(best.microseconds)} µs ({best.competitor.name})"
        for name, limit in (("must", target.must), ("aim", target.aim)):
            yield Check(
                f"{name}: at most {limit:g} µs", title(first), time, best.microseconds <= limit
            )
    asked = AUTOGRAD_RATIO_FAST if target.must <= FAST_TARGET else AUTOGRAD_RATIO
    gained = ratio(fastest(group, ["autograd"], captured=True), best)
    if gained is not None:
        text = f"at least {asked} × as fast as autograd in a CUDA graph"
        yield Check(text, title(first), f"{gained:.1f} ×", gained >= asked)


def _of_stacks(group: Group) -> Iterator[Check]:
    case = group[0].case
    compared = (case.task == "addition" and case.depth >= 4) or (
        case.task == "mnist" and case.depth == 5
    )
    gained = ratio(fastest(group, ["nn.LSTM"]), ours(group))
    if compared and case.model == "tlstm_2d" and case.suite != "step" and gained is not None:
        text = f"faster than nn.LSTM of {case.depth} layers, its fastest precision"
        yield Check(text, title(group[0]), f"{gained:.2f} ×", gained > 1)


def _of_errors(shown: Sequence[Group]) -> Iterator[Check]:
    """The worst of all cases, for each of our implementations in each precision."""
    kinds = {
        (each.competitor.implementation, each.competitor.precision)
        for group in shown
        for each in group
        if each.competitor.is_ours and each.competitor.precision in ERRORS
    }
    for implementation, precision in sorted(kinds):
        who = f"{implementation}, {precision}"
        pairs = [_errors(group, implementation, precision) for group in shown]
        found = [(mine, plain) for mine, plain in pairs if mine is not None]
        if not found:
            continue
        worst = max((mine for mine, _ in found), key=_size)
        limit, size = ERRORS[precision], _size(worst)
        text = f"{size:.1e} ({title(worst)}: {_where(worst)})"
        asked = f"relative errors at most {limit:g}"
        yield Check(asked, f"{who}, {len(found)} cases", text, size <= limit)
        ratios = [(_error_ratio(mine, plain), mine) for mine, plain in found if plain is not None]
        if ratios:
            most, where = max(ratios, key=lambda pair: pair[0])
            asked = f"errors at most {ERROR_RATIO} × autograd's"
            text = f"{most:.2f} × ({title(where)})"
            yield Check(asked, f"{who}, {len(ratios)} cases", text, most <= ERROR_RATIO)


def _errors(
    group: Group, implementation: Implementation, precision: Precision
) -> tuple[Measurement | None, Measurement | None]:
    """Ours with its errors, and plain autograd's in the same precision."""
    wanted: tuple[Implementation, ...] = (implementation, "autograd")
    mine, plain = (
        next(
            (
                each
                for each in group
                if each.errors is not None
                and (each.competitor.implementation, each.competitor.precision) == (who, precision)
            ),
            None,
        )
        for who in wanted
    )
    return mine, plain


def _size(measurement: Measurement) -> float:
    errors = measurement.errors
    return max(errors.output, errors.gradient) if errors else 0.0


def _where(measurement: Measurement) -> str:
    errors = measurement.errors
    assert errors is not None
    return "output" if errors.output > errors.gradient else errors.worst


def _error_ratio(mine: Measurement, plain: Measurement) -> float:
    assert mine.errors is not None
    assert plain.errors is not None
    return max(
        mine.errors.output / plain.errors.output, mine.errors.gradient / plain.errors.gradient
    )


def _of_steps(group: Group, on_gpu: bool) -> Iterator[Check]:
    first, best = group[0], fastest(group, OURS, captured=on_gpu)
    if first.case.suite != "step" or best is None or best.microseconds is None:
        return
    if TARGET_DEVICE in first.hardware.device:
        text = f"a captured step in at most {STEP_MICROSECONDS} µs"
        time = f"{microseconds(best.microseconds)} µs ({best.competitor.name})"
        yield Check(text, title(first), time, best.microseconds <= STEP_MICROSECONDS)
    gained = ratio(fastest(group, ["nn.LSTMCell"]), best)
    if not on_gpu and gained is not None and first.case.rank == 2:
        text = f"a step no slower than {first.case.depth} × nn.LSTMCell"
        yield Check(text, title(first), f"{gained:.2f} × as fast", gained >= 1)


def _of_processors(shown: Sequence[Group]) -> Iterator[Check]:
    """Time and memory beside plain autograd: MNIST, and the worst of all cases."""
    pairs = [
        (best, plain)
        for best, plain in ((ours(group), fastest(group, ["autograd"])) for group in shown)
        if best is not None and plain is not None and best.training is not None
    ]
    for best, plain in pairs:
        if best.case.task == "mnist" and best.case.suite == "targets":
            gained = ratio(plain, best) or 0.0
            text = f"at least {CPU_RATIO:g} × as fast as plain autograd"
            yield Check(text, title(best), f"{gained:.2f} ×", gained >= CPU_RATIO)
    if pairs:
        best, plain = min(pairs, key=lambda pair: ratio(pair[1], pair[0]) or 0.0)
        gained = ratio(plain, best) or 0.0
        text = f"{gained:.2f} × as fast ({title(best)})"
        yield Check("never slower than plain autograd", f"{len(pairs)} cases", text, gained >= 1)
    shares = [
        (best.main.peak_memory / plain.main.peak_memory, best, plain)
        for best, plain in pairs
        if best.main.peak_memory is not None and plain.main.peak_memory
    ]
    if shares:
        share, best, plain = max(shares, key=lambda three: three[0])
        sizes = f"{mebibytes(best.main.peak_memory)} of {mebibytes(plain.main.peak_memory)} MiB"
        text = f"at most {CPU_MEMORY:g} × the memory of plain autograd"
        measured = f"{share:.2f} × ({title(best)}: {sizes})"
        yield Check(text, f"{len(shares)} cases", measured, share <= CPU_MEMORY)


def _of_depth(measurements: Sequence[Measurement]) -> Iterator[Check]:
    found: dict[int, dict[int, Measurement]] = {}
    for group in groups(measurements, "size"):
        best = ours(group)
        if best is not None:
            found.setdefault(best.case.channels, {})[best.case.tensor_size] = best
    for channels, sizes in found.items():
        grown = ratio(sizes.get(10), sizes.get(1))
        if grown is not None:
            text = f"runtime at P = 10 at most {DEPTH_RATIO} × that at P = 1"
            yield Check(text, f"2D tLSTM, M = {channels}", f"{grown:.2f} ×", grown <= DEPTH_RATIO)


def title(measurement: Measurement) -> str:
    """A case in the paper's words: "addition, 3D tLSTM+CN, L = 7, M = 400, T = 49"."""
    case = measurement.case
    text = f"{TASK_TITLES[case.task]}, {case.label}, L = {case.depth}, M = {case.channels}"
    return f"single steps, {text}" if case.suite == "step" else f"{text}, T = {case.timesteps}"
