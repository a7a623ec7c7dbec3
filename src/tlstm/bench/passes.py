"""One pass over a sequence: called, replayed from a CUDA graph, and timed."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch._C._autograd import DeviceType

from tlstm.bench.competitors import Program

Kind = Literal["forward", "training"]
WARM_UPS = 1  # pass before a capture, on the stream beside that a capture needs


def compute(program: Program, kind: Kind, x: Tensor, cotangent: Tensor | None) -> list[Tensor]:
    """One pass.

    Args:
        program: what is computed.
        kind: "forward", without gradients, or "training", with those of all parameters.
        x: the input.
        cotangent: of the output's shape and type; the loss is the sum of output · cotangent.

    Returns:
        The output and, in training, the gradients.
    """
    if kind == "forward":
        with torch.no_grad():
            return [program.forward(x)]
    output = program.forward(x)
    assert cotangent is not None
    parameters = list(program.parameters.values())
    gradients = torch.autograd.grad(output, parameters, cotangent)
    return [output.detach(), *gradients]


def output_dtype(program: Program, x: Tensor) -> torch.dtype:
    """The type of a program's output, which autocast may change."""
    return compute(program, "forward", x, None)[0].dtype


class Eager:
    """A pass that is called."""

    def __init__(self, run: Callable[[Tensor], object], x: Tensor) -> None:
        self._run = run
        self._x = x

    def load(self, x: Tensor) -> None:
        """Take another input, outside of what is timed."""
        self._x = x

    def __call__(self) -> None:
        """Do it."""
        self._run(self._x)


class Captured:
    """A pass that is replayed from a CUDA graph.

    Warmed up on a stream beside, as a capture needs; its input stays in one place.

    Attributes:
        results: what the pass returns, in place: new after every replay.
    """

    def __init__(self, run: Callable[[Tensor], list[Tensor]], x: Tensor) -> None:
        self._x = x.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                run(self._x)
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            # What it returns lives in the graph's memory and is kept, as a training step would
            self.results = run(self._x)

    def load(self, x: Tensor) -> None:
        """Take another input, outside of what is timed."""
        self._x.copy_(x)

    def __call__(self) -> None:
        """Do it."""
        self._graph.replay()


AnyPass = Eager | Captured


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, until the device is done."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started


def timed(
    one: AnyPass, inputs: Iterator[Tensor], samples: int, calls: int, device: torch.device
) -> list[float]:
    """Seconds of a pass, by CUDA events on a GPU and by the clock elsewhere.

    Args:
        one: the pass.
        inputs: a fresh one is taken for every sample, outside of what is timed.
        samples: how many numbers to return.
        calls: passes that each of them is the mean of.
        device: that computes.
    """
    one.load(next(inputs))
    one()
    wait(device)
    return (_by_events if device.type == "cuda" else _by_clock)(one, inputs, samples, calls)


def _by_clock(one: AnyPass, inputs: Iterator[Tensor], samples: int, calls: int) -> list[float]:
    found = []
    for _ in range(samples):
        one.load(next(inputs))
        started = time.perf_counter()
        for _ in range(calls):
            one()
        found.append((time.perf_counter() - started) / calls)
    return found


def _by_events(one: AnyPass, inputs: Iterator[Tensor], samples: int, calls: int) -> list[float]:
    events = []
    for _ in range(samples):
        one.load(next(inputs))
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            one()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 / calls for start, end in events]


def gpu_kernels(call: Callable[[], object]) -> int:
    """How many GPU kernels a call launches; copies and fills by the driver are none."""
    activity = torch.profiler.ProfilerActivity.CUDA
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Profiler clears events.*")
        with torch.profiler.profile(activities=[activity]) as profile:
            call()
            torch.cuda.synchronize()
    # Not profile.events(), which takes seconds to make Python objects of 25,000 of them
    events = profile.profiler.kineto_results.events()
    return count_kernels((event.device_type(), event.name()) for event in events)


def count_kernels(events: Iterable[tuple[DeviceType, str]]) -> int:
    """Those of a profiler's events that are kernels on a GPU."""
    on_gpu = (name for place, name in events if place == DeviceType.CUDA)
    return sum(not name.startswith(("Memcpy", "Memset")) for name in on_gpu)
