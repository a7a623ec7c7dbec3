"""Comparisons between the benchmark's measurements: the fastest of a case, requirements, tables.

All comparisons are between measurements of one case in one run; times are microseconds per
timestep of a batch, forward and backward.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from tlstm.records.measurement import (
    IMPLEMENTATIONS,
    OURS,
    UNKNOWN,
    Errors,
    Implementation,
    Measurement,
    Precision,
    format_microseconds,
)
from tlstm.records.models import TASK_TITLES

TARGET_DEVICE = "H200"  # of the required times
FAST_TARGET = 25  # required µs per timestep, up to which 10 times autograd's speed is required
AUTOGRAD_RATIO_FAST, AUTOGRAD_RATIO = 10, 3
DEPTH_RATIO = 1.3  # of the runtime at P = 10 to the one at P = 1
ERRORS: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 2e-2}
ERROR_RATIO = 2  # to autograd's in the same precision
STEP_MICROSECONDS = 25
CPU_RATIO = 1.5  # of plain autograd's time to ours, on MNIST
CPU_MEMORY = 0.5  # of plain autograd's peak

Group = Sequence[Measurement]
Row = dict[str, str]
Share = tuple[float, Measurement]  # of a limit, at most 1 where the requirement holds


class Machine(NamedTuple):
    """The machine and scale of measurements that can be shown together.

    Attributes:
        device: its name.
        quick: whether sequences were short and large cases left out.
    """

    device: str
    quick: bool

    @property
    def slug(self) -> str:
        """Return the stem of file names: "nvidia-h200", "amd-epyc-quick"."""
        kept = "".join(sign if sign.isalnum() else " " for sign in self.device.lower())
        return "-".join([*kept.split(), *(["quick"] if self.quick else [])])


def machines(measurements: Iterable[Measurement]) -> dict[Machine, list[Measurement]]:
    """Return measurements by machine: GPUs first, quick measurements last."""
    found: dict[Machine, list[Measurement]] = {}
    for each in measurements:
        found.setdefault(Machine(each.hardware.device, each.quick), []).append(each)
    return {key: found[key] for key in sorted(found, key=lambda key: (key.quick, key.device))}


def groups(measurements: Iterable[Measurement], suite: str | None = None) -> list[Group]:
    """Return measurements of the same case and run, in their order."""
    found: dict[tuple[object, ...], list[Measurement]] = {}
    for each in measurements:
        if suite in (None, each.case.suite):
            key = each.hardware.device, each.quick, each.run, each.case.suite, each.case.name
            found.setdefault(key, []).append(each)
    return list(found.values())


def fastest(
    group: Group, implementations: Sequence[Implementation], cuda_graph: bool | None = None
) -> Measurement | None:
    """Return the fastest of some implementations, in any precision; None if there is none."""
    found = [
        each
        for each in group
        if each.microseconds is not None
        and each.competitor.implementation in implementations
        and cuda_graph in (None, each.competitor.cuda_graph)
    ]
    return min(found, key=lambda each: each.microseconds or 0, default=None)


def ours(group: Group) -> Measurement | None:
    """Return the fastest of the layer's fast paths."""
    return fastest(group, OURS)


def title(measurement: Measurement) -> str:
    """Return a case in the paper's words: "addition, 3D tLSTM+CN, L = 7, M = 400, T = 49"."""
    case = measurement.case
    text = f"{TASK_TITLES[case.task]}, {case.label}, L = {case.depth}, M = {case.channels}"
    return f"single steps, {text}" if case.suite == "step" else f"{text}, T = {case.timesteps}"


def task_title(task: str) -> str:
    """Return a task's name; permuted MNIST has the sizes of MNIST."""
    return "MNIST and permuted MNIST" if task == "mnist" else TASK_TITLES[task]


def ratio(slower: Measurement | None, faster: Measurement | None) -> float | None:
    """Return the time of the one divided by that of the other; None if either is unknown."""
    if slower is None or faster is None or not slower.microseconds or not faster.microseconds:
        return None
    return slower.microseconds / faster.microseconds


def requirements(shown: Sequence[Group]) -> list[Row]:
    """Return a row for every requirement that measurements on one machine can decide."""
    limits: dict[str, Callable[[Group], float | None]] = {
        "time at most the required one": lambda group: _target(group, "required"),
        "goal: time at most that of the goal": lambda group: _target(group, "goal"),
        f"time at most 1/{AUTOGRAD_RATIO_FAST} of autograd's in a CUDA graph where at most "
        f"{FAST_TARGET} µs are required, else 1/{AUTOGRAD_RATIO}": _autograd_graph,
        "2D tLSTM faster than nn.LSTM of L layers (addition, L ≥ 4; MNIST, L = 5)": _stack,
        f"time at P = 10 at most {DEPTH_RATIO} × that at P = 1": _shallow(shown),
        f"a single step in at most {STEP_MICROSECONDS} µs": _step,
        "a single step no slower than L × nn.LSTMCell": _cells,
        f"MNIST {CPU_RATIO:g} × as fast as autograd": _autograd_on_mnist,
        "never slower than autograd": _autograd,
    }
    compared = {text: _shares(shown, limit) for text, limit in limits.items()}
    compared[f"at most {CPU_MEMORY:g} × the memory of autograd"] = list(_memory(shown))
    for precision, most in ERRORS.items():
        compared[f"errors at most {most:g} in {precision}"] = list(_errors(shown, precision, most))
    compared[f"errors at most {ERROR_RATIO} × autograd's"] = list(_error_ratios(shown))
    return [_requirement(text, shares) for text, shares in compared.items() if shares]


def _requirement(text: str, shares: Sequence[Share]) -> Row:
    worst, where = max(shares, key=lambda share: share[0])
    return {
        "requirement": text,
        "cases": str(len(shares)),
        "hold": str(sum(share <= 1 for share, _ in shares)),
        "worst, of the limit": f"{worst:.1%}",
        "worst case": f"{title(where)} ({where.competitor.name})",
    }


def _shares(shown: Sequence[Group], limit: Callable[[Group], float | None]) -> list[Share]:
    """Return our time as a share of a limit in µs, for the cases that have one."""
    found = ((ours(group), limit(group)) for group in shown)
    return [(m.microseconds / most, m) for m, most in found if m and m.microseconds and most]


def _target(group: Group, name: str) -> float | None:
    target = group[0].case.target
    return getattr(target, name) if TARGET_DEVICE in group[0].hardware.device and target else None


def _time(group: Group, name: Implementation, cuda_graph: bool | None = None) -> float | None:
    best = fastest(group, [name], cuda_graph)
    return best.microseconds if best else None


def _autograd_graph(group: Group) -> float | None:
    target, plain = group[0].case.target, _time(group, "autograd", cuda_graph=True)
    if target is None or plain is None:
        return None
    return plain / (AUTOGRAD_RATIO_FAST if target.required <= FAST_TARGET else AUTOGRAD_RATIO)


def _stack(group: Group) -> float | None:
    case = group[0].case
    deep = (case.task == "addition" and case.depth >= 4) or (case.task, case.depth) == ("mnist", 5)
    compared = group[0].on_gpu and case.suite != "step" and case.model == "tlstm_2d" and deep
    return _time(group, "nn.LSTM") if compared else None


def _shallow(shown: Sequence[Group]) -> Callable[[Group], float | None]:
    """Return the limit of the runtime at P = 10, from those at P = 1 on a GPU."""
    sizes = [ours(group) for group in shown if group[0].case.suite == "size" and group[0].on_gpu]
    first = {m.case.channels: m.microseconds for m in sizes if m and m.case.tensor_size == 1}

    def limit(group: Group) -> float | None:
        case = group[0].case
        deep = (case.suite, case.tensor_size) == ("size", 10)
        return DEPTH_RATIO * (first.get(case.channels) or 0) if deep else None

    return limit


def _step(group: Group) -> float | None:
    on_target = TARGET_DEVICE in group[0].hardware.device
    return STEP_MICROSECONDS if group[0].case.suite == "step" and on_target else None


def _cells(group: Group) -> float | None:
    step = group[0].case.suite == "step" and group[0].case.rank == 2
    return _time(group, "nn.LSTMCell") if step and not group[0].on_gpu else None


def _autograd(group: Group) -> float | None:
    trained = group[0].training is not None and not group[0].on_gpu
    return _time(group, "autograd") if trained else None


def _autograd_on_mnist(group: Group) -> float | None:
    plain, case = _autograd(group), group[0].case
    return plain / CPU_RATIO if plain and (case.task, case.suite) == ("mnist", "targets") else None


def _memory(shown: Sequence[Group]) -> Iterator[Share]:
    """Yield our peak as a share of its limit, on a processor."""
    for group in shown:
        best, plain = ours(group), fastest(group, ["autograd"])
        if best is None or plain is None or best.training is None or best.on_gpu:
            continue
        if best.main.peak_memory is not None and plain.main.peak_memory:
            yield best.main.peak_memory / (CPU_MEMORY * plain.main.peak_memory), best


def _with_errors(
    group: Group, names: Sequence[Implementation], precision: Precision
) -> Iterator[tuple[Errors, Measurement]]:
    """Yield the errors of some implementations in a precision, each once."""
    for name in names:
        for each in group:
            who = each.competitor
            if each.errors and (who.implementation, who.precision) == (name, precision):
                yield each.errors, each
                break


def _errors(shown: Sequence[Group], precision: Precision, limit: float) -> Iterator[Share]:
    """Yield our errors as a share of the limit."""
    for group in shown:
        for found, each in _with_errors(group, OURS, precision):
            yield max(found.output, found.gradient) / limit, each


def _error_ratios(shown: Sequence[Group]) -> Iterator[Share]:
    """Yield our errors as a share of the limit that autograd's in the same precision set."""
    for group, precision in itertools.product(shown, ERRORS):
        for base, _ in _with_errors(group, ["autograd"], precision):
            for mine, each in _with_errors(group, OURS, precision):
                worst = max(mine.output / base.output, mine.gradient / base.gradient)
                yield worst / ERROR_RATIO, each


# Tables


def _peer(group: Group, implementations: Sequence[Implementation]) -> str:
    """Return the time of the fastest of some peers, and its ratio to ours."""
    peer = fastest(group, implementations)
    if peer is None:
        return UNKNOWN
    times = ratio(peer, ours(group))
    return _told(peer) if times is None else f"{_told(peer)}, {times:.2g} ×"


def _told(best: Measurement | None) -> str:
    return f"{format_microseconds(best.microseconds)} ({best.competitor.name})" if best else UNKNOWN


def target_row(group: Group) -> Row:
    """Return a row of the table of targets."""
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
        "ours": _told(best),
        "autograd": _peer(group, ["autograd"]),
        "torch.compile": _peer(group, ["torch.compile"]),
        "nn.LSTM": _peer(group, ["nn.LSTM"]),
    }


def step_row(group: Group) -> Row:
    """Return a row of the table of single timesteps: the fastest of each implementation."""
    best = {name: fastest(group, [name]) for name in IMPLEMENTATIONS}
    case = group[0].case
    return {
        "configuration": f"{case.label}, L = {case.depth}, M = {case.channels}",
        **{name: _told(each) for name, each in best.items()},
    }


def known(shown: Iterable[Row]) -> list[Row]:
    """Return rows without the columns of which nothing is known."""
    table = list(shown)
    names = {name for row in table for name, cell in row.items() if cell != UNKNOWN}
    return [{name: cell for name, cell in row.items() if name in names} for row in table]


def flat(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Return all measurements as one flat table."""
    return pd.DataFrame([_flat_row(each) for each in measurements], dtype=object)


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
