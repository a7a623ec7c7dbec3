"""Measures a case by all its competitors, in rounds whose order changes.

Every competitor is prepared: built, called, captured. Then all of them take turns, round after
round in another order, on fresh random inputs, so that what changes on the machine meanwhile
meets all of them alike.
"""

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from math import ceil

import torch
from torch import Tensor

from tlstm.bench.accuracy import Truth, relative_error
from tlstm.bench.competitors import Program, matrix_products, program
from tlstm.bench.memory import peak_memory
from tlstm.bench.passes import (
    AnyPass,
    Captured,
    Eager,
    Kind,
    compute,
    gpu_kernels,
    output_dtype,
    seconds_of,
    timed,
    wait,
)
from tlstm.records.measurement import STACKS, Case, Competitor, Errors, Pass, Timing

ROUNDS = 5
FEWEST_ROUNDS = 3  # for what takes long
MOST_SAMPLES = 8  # of one thing in one round
SAMPLE_SECONDS = 1e-2  # at least, so that neither clock nor the first launch shows
REPLAY_ERROR = 3e-2  # of a graph's output to the same computation called, relative: bfloat16's
INPUTS = 4  # sets of random numbers


class DeviceLostError(RuntimeError):
    """The device does not work any more: nothing else can be measured in this process."""


class Inputs:
    """Random inputs and the weights of the outputs in the loss, the same for all competitors."""

    def __init__(self, case: Case, device: torch.device) -> None:
        torch.manual_seed(2)
        shape: tuple[int, ...] = (case.batch_size, case.input_size)
        if case.suite != "step":
            shape = (case.timesteps, *shape)
        self._sets = [torch.randn(shape, device=device) for _ in range(INPUTS)]
        self.cotangent = torch.randn(*shape[:-1], case.channels, device=device)

    def endless(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """One set after the other, again and again."""
        return cycle([each.to(dtype) for each in self._sets])


@dataclass
class Entry:
    """One competitor and what has been found out about it.

    Attributes:
        competitor: who.
        program: what it computes, and its `inputs`, while it is measured.
        passes: what is timed, by kind.
        estimates: seconds of one such pass.
        found: by kind, what is recorded but for the timing.
        samples: by kind, seconds of each repetition.
        errors: against float64.
        failure: why something is missing.
    """

    competitor: Competitor
    program: Program | None = None
    inputs: Iterator[Tensor] = field(default_factory=lambda: iter(()))
    passes: dict[Kind, AnyPass] = field(default_factory=dict)
    estimates: dict[Kind, float] = field(default_factory=dict)
    found: dict[Kind, Pass] = field(default_factory=dict)
    samples: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Errors | None = None
    failure: str | None = None

    def release(self) -> None:
        """Let go of what takes memory."""
        self.program, self.inputs = None, iter(())
        self.passes.clear()

    def fail(self, error: Exception) -> None:
        """Take it out of the rounds, and say why."""
        first = (str(error).strip() or "no reason given").splitlines()[0]
        self.failure = f"{type(error).__name__}: {first}"
        self.samples.clear()
        self.release()

    def result(self, kind: Kind, case: Case) -> Pass:
        """What is recorded of one kind of pass."""
        found, seconds = self.found.get(kind, Pass()), self.samples.get(kind)
        return found.model_copy(
            update={"timing": Timing.of(seconds, case.timesteps) if seconds else None}
        )


def kinds(case: Case) -> tuple[Kind, ...]:
    """The passes that a case is measured with."""
    return ("forward",) if case.suite == "step" else ("forward", "training")


def measure(
    case: Case,
    competitors: Sequence[Competitor],
    device: torch.device,
    seconds: float,
    tell: Callable[[str], None],
) -> list[Entry]:
    """Measures a case.

    Args:
        case: what is computed.
        competitors: by whom; one that fails says so and keeps nobody else from going on.
        device: on which.
        seconds: of timing for every number, more or less.
        tell: is told what is being done.

    Raises:
        DeviceLostError: the device does not work any more.
    """
    entries = [Entry(competitor) for competitor in competitors]
    inputs = Inputs(case, device)
    truth = _truth(case, competitors, device)
    for place, entry in enumerate(entries):
        tell(f"preparing {entry.competitor.name}")
        with _attempt(entry, device):
            _prepare(entry, case, inputs, device)
            entry.errors = _errors(entry, entries[:place], truth)
    del truth
    tell("measuring in turns")
    for number in range(ROUNDS):
        for entry in in_turn(entries, number):
            with _attempt(entry, device):
                _take_turn(entry, number, device, seconds)
    for entry in entries:
        entry.release()
    free_memory(device)
    return entries


def in_turn(entries: Sequence[Entry], number: int) -> list[Entry]:
    """The order of a round: each begins one later, and every other one runs backwards."""
    start = number % max(len(entries), 1)
    order = [*entries[start:], *entries[:start]]
    return order[::-1] if number % 2 else order


def plan(estimate: float, seconds: float, number: int) -> tuple[int, int]:
    """How often something is measured in a round.

    Args:
        estimate: seconds of one pass.
        seconds: of timing in all rounds, more or less.
        number: of the round, from 0.

    Returns:
        The number of samples, none in the last rounds for what takes long, and the passes that
        each of them is the mean of.
    """
    calls = ceil(SAMPLE_SECONDS / estimate)
    rounds = FEWEST_ROUNDS if estimate > seconds / ROUNDS else ROUNDS
    if number >= rounds:
        return 0, calls
    return min(MOST_SAMPLES, max(1, int(seconds / rounds / (estimate * calls)))), calls


def kernels_per_timestep(
    case: Case, competitor: Competitor, device: torch.device
) -> dict[Kind, float]:
    """How many GPU kernels a pass launches for every timestep, those between them included."""
    inputs = Inputs(case, device)
    found: dict[Kind, float] = {}
    with matrix_products(competitor.precision):
        made = program(case, competitor, device)
        x = next(inputs.endless(made.dtype))
        for kind in kinds(case):
            run = partial(_runner(made, kind, inputs.cotangent, x), x)
            run()
            found[kind] = gpu_kernels(run) / case.timesteps
    return found


def free_memory(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _prepare(entry: Entry, case: Case, inputs: Inputs, device: torch.device) -> None:
    """Build what is timed, and find out what building it and one call take."""
    made = entry.program = program(case, entry.competitor, device)
    entry.inputs = inputs.endless(made.dtype)
    x = next(entry.inputs)
    for kind in kinds(case):
        run = _runner(made, kind, inputs.cotangent, x)
        first = seconds_of(partial(run, x), device)
        memory = peak_memory(partial(run, x), device)
        started = time.perf_counter()
        one: AnyPass = (Captured if entry.competitor.captured else Eager)(run, x)
        wait(device)
        captured = time.perf_counter() - started
        if isinstance(one, Captured) and case.suite != "step":
            other = next(entry.inputs)
            _check_replay(one, other, run(other)[0])
        entry.found[kind] = Pass(
            peak_memory=memory,
            first_call_seconds=first,
            capture_seconds=captured if entry.competitor.captured else None,
        )
        entry.estimates[kind] = seconds_of(one, device)
        entry.passes[kind] = one


def _runner(
    made: Program, kind: Kind, cotangent: Tensor, x: Tensor
) -> Callable[[Tensor], list[Tensor]]:
    """One pass as a function of its input alone."""
    if kind == "training":
        cotangent = cotangent.to(output_dtype(made, x))
    return partial(_run, made, kind, cotangent)


def _run(made: Program, kind: Kind, cotangent: Tensor, x: Tensor) -> list[Tensor]:
    return compute(made, kind, x, cotangent)


def _check_replay(one: Captured, x: Tensor, expected: Tensor) -> None:
    """What is replayed on another input must be what was called on it.

    Raises:
        ValueError: it is not.
    """
    one.load(x)
    one()
    error = relative_error([one.results[0]], [expected.double()])
    if error > REPLAY_ERROR:
        raise ValueError(f"the CUDA graph's output is off by {error:.1e}")


def _truth(case: Case, competitors: Sequence[Competitor], device: torch.device) -> Truth | None:
    """What outputs and gradients are compared with; None if nothing is, or for lack of memory."""
    if case.suite == "step" or all(each.implementation in STACKS for each in competitors):
        return None
    try:
        with matrix_products("float32"):
            return Truth(case, device)
    except torch.OutOfMemoryError:
        free_memory(device)
        return None


def _errors(entry: Entry, before: Sequence[Entry], truth: Truth | None) -> Errors | None:
    """Against float64; those of one before that computes the same."""
    who = entry.competitor
    if truth is None or who.implementation in STACKS:
        return None
    for other in before:
        like = other.competitor.model_copy(update={"captured": who.captured})
        if like == who and other.errors is not None:
            return other.errors
    assert entry.program is not None
    return truth.errors(entry.program)


def _take_turn(entry: Entry, number: int, device: torch.device, seconds: float) -> None:
    """One competitor's part of a round."""
    for kind, one in entry.passes.items():
        samples, calls = plan(entry.estimates[kind], seconds, number)
        if samples:
            entry.samples[kind] += timed(one, entry.inputs, samples, calls, device)


@contextmanager
def _attempt(entry: Entry, device: torch.device) -> Iterator[None]:
    """In the competitor's precision; an error takes it out of the rounds.

    Raises:
        DeviceLostError: after the error the device does not work any more.
    """
    try:
        with matrix_products(entry.competitor.precision):
            yield
    except Exception as error:
        entry.fail(error)
    else:
        return
    try:
        free_memory(device)
        wait(device)
    except Exception as error:
        raise DeviceLostError(
            f"the device stopped working after {entry.competitor.name}: {entry.failure}"
        ) from error
