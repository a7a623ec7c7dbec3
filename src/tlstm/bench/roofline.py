"""The roofline: the rate of large matrix products, a case's own products, and the time expected."""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from tlstm.bench.cuda_graphs import Call
from tlstm.bench.timing import ROUNDS, kinds, time_calls
from tlstm.records.measurement import Case, Competitor, Precision, Roofline, Timing

SIDE_ON_GPU, SIDE_ON_CPU = 8192, 1024
SAMPLES = 5

# Seconds to build, compile and capture, and microseconds per timestep that launches alone take,
# forward and backward: rough, on one NVIDIA H200 and on two processor cores
COSTS = {
    "triton": (2.5, 40),
    "pytorch": (0.6, 400),
    "autograd": (0.6, 2000),
    "torch.compile": (10, 600),
    "nn.LSTM": (0.3, 60),
    "nn.LSTMCell": (0.3, 200),
}
GRAPHED = 0.3  # of the time of launches, with a CUDA graph
EFFICIENCY = 0.4  # of the rate of a large matrix product
CALLS = 4  # of every pass, before those that are timed


def compute_dtype(device: torch.device) -> tuple[torch.dtype, Precision]:
    """Return the type of the roofline's products: bfloat16 on a GPU, else float32."""
    return (torch.bfloat16, "bfloat16") if device.type == "cuda" else (torch.float32, "float32")


def multiplication_rate(device: torch.device) -> float:
    """Return the floating-point operations per second of a large square matrix product."""
    side = SIDE_ON_GPU if device.type == "cuda" else SIDE_ON_CPU
    dtype, _ = compute_dtype(device)
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    multiply = partial(torch.mm, first, second, out=torch.empty_like(first))
    return 2 * side**3 / median(time_calls(multiply, 2, device) for _ in range(SAMPLES))


def roofline(case: Case, rate: float, device: torch.device, with_products: bool) -> Roofline:
    """Return the roofline of a case.

    Args:
        case: the case.
        rate: operations per second, of `multiplication_rate`.
        device: the device.
        with_products: whether to measure the case's own products too.
    """
    return Roofline(
        operations=case.operations,
        rate=rate,
        rate_precision=compute_dtype(device)[1],
        products=products_alone(case, device) if with_products else None,
    )


def products_alone(case: Case, device: torch.device) -> float:
    """Return the microseconds per timestep of a case's matrix products, back to back.

    Forward and the gradient of the input once each timestep, the gradient of the weights once
    for all timesteps; by torch.mm, in a CUDA graph on a GPU.
    """
    nothing = torch.empty(0, device=device)
    one = Call(_products(case, device), nothing, cuda_graph=device.type == "cuda")
    return Timing.of([time_calls(one, 1, device) for _ in range(SAMPLES)], case.timesteps).median


def _products(case: Case, device: torch.device) -> Callable[[Tensor], list[Tensor]]:
    rows, *unaligned = case.product
    # Rounded up to multiples of eight: torch.mm is several times slower on odd rows
    inner, columns = (-(-size // 8) * 8 for size in unaligned)
    steps = case.timesteps
    random = partial(torch.randn, device=device, dtype=compute_dtype(device)[0])
    read, gates = random(steps, rows, inner), random(steps, rows, columns)
    weight = random(inner, columns)
    forward, backward = torch.empty_like(gates[0]), torch.empty_like(read[0])
    gradient = torch.empty_like(weight)

    def run(_: Tensor) -> list[Tensor]:
        for step in read:
            torch.mm(step, weight, out=forward)
        for step in gates:
            torch.mm(step, weight.T, out=backward)
        return [torch.mm(read.flatten(0, 1).T, gates.flatten(0, 1), out=gradient)]

    return run


def expected_seconds(
    case: Case, competitor: Competitor, rate: float, seconds: float, on_gpu: bool
) -> float:
    """Return the rough duration of a measurement in seconds; arguments as those of `measure`."""
    preparation, launches = COSTS[competitor.implementation]
    arithmetic = 3 * case.operations / (rate * EFFICIENCY)
    called = case.timesteps * max(arithmetic, 1e-6 * launches)
    timed = called * (GRAPHED if competitor.cuda_graph else 1)
    passes = CALLS * called + 2 * ROUNDS * timed + seconds
    return (preparation if on_gpu else 0.1) + passes * len(kinds(case)) * 0.7
