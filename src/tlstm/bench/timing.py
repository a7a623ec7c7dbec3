"""Measure a case by all its competitors, in rounds of random order.

Every competitor is prepared: built, called, captured. Then all of them take turns, each round in
another order and on another random input, so that a change of the machine's speed meets all alike.
"""

import gc
import random
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch._C._autograd import DeviceType

from tlstm.bench.accuracy import Draw, Reference, draw, relative_error
from tlstm.bench.competitors import Program, matrix_products, program
from tlstm.bench.cuda_graphs import Call, Kind, compute
from tlstm.bench.memory import peak_memory
from tlstm.records.measurement import STACKS, Case, Competitor, Errors, Pass, Timing

ROUNDS = 10
MIN_ROUNDS = 3  # of a call that takes longer than a round should
INPUTS = 4  # different random inputs
REPLAY_ERROR = 3e-2  # relative, of a graph's output to the called one's: bfloat16's


class DeviceLostError(RuntimeError):
    """The device stopped working: nothing else can be measured in this process."""


@dataclass
class Entry:
    """One competitor and its measurements.

    Attributes:
        competitor: the implementation.
        calls: by kind, the passes to time; empty once it has failed or is finished.
        estimates: seconds of one such pass.
        found: by kind, the record without its timing.
        samples: by kind, seconds of each repetition.
        errors: against float64.
        failure: why something is missing.
    """

    competitor: Competitor
    calls: dict[Kind, Call] = field(default_factory=dict)
    estimates: dict[Kind, float] = field(default_factory=dict)
    found: dict[Kind, Pass] = field(default_factory=dict)
    samples: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Errors | None = None
    failure: str | None = None

    def result(self, kind: Kind, case: Case) -> Pass:
        """Return the record of one kind of pass."""
        found, seconds = self.found.get(kind, Pass()), self.samples.get(kind)
        timing = Timing.of(seconds, case.timesteps) if seconds else None
        return found.model_copy(update={"timing": timing})


def kinds(case: Case) -> tuple[Kind, ...]:
    """Return the kinds of passes of a case."""
    return ("forward",) if case.suite == "step" else ("forward", "training")


def measure(
    case: Case,
    competitors: Sequence[Competitor],
    device: torch.device,
    seconds: float,
    report: Callable[[str], None],
) -> list[Entry]:
    """Measure a case.

    Args:
        case: the computation.
        competitors: the implementations; one that fails does not stop the others.
        device: the device.
        seconds: of timing for every number, roughly.
        report: called with every step of the work.

    Raises:
        DeviceLostError: the device stopped working.
    """
    entries = [Entry(competitor) for competitor in competitors]
    known: dict[tuple[str, str], Errors] = {}  # which a CUDA graph does not change
    draws = _draws(case, device)
    reference = _reference(case, competitors, device)
    for entry in entries:
        report(f"preparing {entry.competitor.name}")
        with _attempt(entry, device):
            made = _prepare(entry, case, draws, device)
            if reference is not None and entry.competitor.implementation not in STACKS:
                same = entry.competitor.implementation, entry.competitor.precision
                entry.errors = known[same] = known.get(same) or reference.errors(made)
            del made
    del reference
    report("timing in turns")
    for number in range(ROUNDS):
        for entry in random.Random(number).sample(entries, len(entries)):
            with _attempt(entry, device):
                _take_turn(entry, draws[number % INPUTS][0], number, device, seconds)
    for entry in entries:
        entry.calls.clear()
    free_memory(device)
    return entries


def calls_in_round(estimate: float, seconds: float, number: int) -> int:
    """Return the calls to time in round `number` of `seconds` in all; 0 in later ones if slow."""
    if estimate * ROUNDS > seconds and number >= MIN_ROUNDS:
        return 0
    return max(1, round(seconds / ROUNDS / estimate))


def time_calls(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Return the seconds of one call: the mean of some, after one, until the device has finished.

    Not `triton.testing.do_bench`: it empties the cache before every call and lets the launches
    of the call hide behind that, which is no runtime of a step in real time.
    """
    call()
    start = _now(device)
    for _ in range(calls):
        call()
    return (_now(device) - start) / calls


def kernels_per_timestep(
    case: Case, competitor: Competitor, device: torch.device
) -> dict[Kind, float]:
    """Return the GPU kernels of a pass per timestep, those between timesteps included."""
    x, cotangent = _draws(case, device)[0]
    found: dict[Kind, float] = {}
    with matrix_products(competitor.precision):
        made = program(case, competitor, device)
        x = x.to(made.dtype)
        for kind in kinds(case):
            call = partial(_runner(made, kind, cotangent, x), x)
            call()
            found[kind] = count_kernels(call) / case.timesteps
    return found


def count_kernels(call: Callable[[], object]) -> int:
    """Return the number of GPU kernels of a call, without copies and fills by the driver."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Profiler clears events.*")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call()
            torch.cuda.synchronize()
    return sum(
        each.count
        for each in profile.key_averages()
        if each.device_type == DeviceType.CUDA and not each.key.startswith(("Memcpy", "Memset"))
    )


def free_memory(device: torch.device) -> None:
    """Give unused memory back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _draws(case: Case, device: torch.device) -> list[Draw]:
    timesteps = [] if case.suite == "step" else [case.timesteps]
    return [draw(case, timesteps, seed, device) for seed in range(INPUTS)]


def _now(device: torch.device) -> float:
    """Return the time in seconds when the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _prepare(entry: Entry, case: Case, draws: Sequence[Draw], device: torch.device) -> Program:
    """Build the passes; measure their first call, memory and capture."""
    made = program(case, entry.competitor, device)
    x, other = (x.to(made.dtype) for x, _ in draws[:2])
    graphed = entry.competitor.cuda_graph
    for kind in kinds(case):
        run = _runner(made, kind, draws[0][1], x)
        times = [_now(device)]
        run(x)
        times.append(_now(device))
        memory = peak_memory(partial(run, x), device)
        times.append(_now(device))
        one = Call(run, x, graphed)
        times.append(_now(device))
        if graphed and case.suite != "step":
            _check_replay(one, other, run(other)[0])
        entry.found[kind] = Pass(
            peak_memory=memory,
            first_call_seconds=times[1] - times[0],
            capture_seconds=times[3] - times[2] if graphed else None,
        )
        entry.estimates[kind] = time_calls(one, 1, device)
        entry.calls[kind] = one
    return made


def _runner(
    made: Program, kind: Kind, cotangent: Tensor, x: Tensor
) -> Callable[[Tensor], list[Tensor]]:
    """Return one pass as a function of its input alone."""
    if kind == "training":  # converted once and not in every pass, where autocast changes the type
        cotangent = cotangent.to(compute(made, "forward", x, cotangent)[0].dtype)
    return lambda given: compute(made, kind, given, cotangent)


def _check_replay(one: Call, x: Tensor, expected: Tensor) -> None:
    """Compare a replay on another input with the call.

    Raises:
        ValueError: they differ.
    """
    one.load(x)
    one()
    error = relative_error([one.results[0]], [expected.double()])
    if error > REPLAY_ERROR:
        raise ValueError(f"the CUDA graph's output is off by {error:.1e}")


def _reference(
    case: Case, competitors: Sequence[Competitor], device: torch.device
) -> Reference | None:
    """Return the reference; None if nothing is compared with it, or for lack of memory."""
    if case.suite == "step" or all(each.implementation in STACKS for each in competitors):
        return None
    try:
        with matrix_products("float32"):
            return Reference(case, device)
    except torch.OutOfMemoryError:
        free_memory(device)
        return None


def _take_turn(entry: Entry, x: Tensor, number: int, device: torch.device, seconds: float) -> None:
    """Time the passes of one competitor in a round, on an input."""
    for kind, one in entry.calls.items():
        calls = calls_in_round(entry.estimates[kind], seconds, number)
        if calls:
            one.load(x)
            entry.samples[kind].append(time_calls(one, calls, device))


@contextmanager
def _attempt(entry: Entry, device: torch.device) -> Iterator[None]:
    """Run in the competitor's precision; an error ends its measurement.

    Raises:
        DeviceLostError: after the error the device does not work any more.
    """
    try:
        with matrix_products(entry.competitor.precision):
            yield
    except Exception as error:
        first = (str(error).strip() or "no reason given").splitlines()[0]
        entry.failure = f"{type(error).__name__}: {first}"
        entry.samples.clear()
        entry.calls.clear()
    else:
        return
    try:
        free_memory(device)
        _now(device)
    except Exception as error:
        raise DeviceLostError(
            f"the device stopped working after {entry.competitor.name}: {entry.failure}"
        ) from error
