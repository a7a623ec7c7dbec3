"""What the arithmetic alone takes: the rate of large matrix products, and a case's own products.

Dimension letters of this file:
    T       timesteps
    R       rows of a timestep's matrix product: examples and locations
    I       its inner size: taps and channels
    O       channels that the hidden convolution makes
"""

from collections.abc import Callable
from itertools import repeat
from statistics import median

import torch
from torch import Tensor

from tlstm.bench.passes import Captured, Eager, seconds_of, timed
from tlstm.records.measurement import Case, Floor, Precision, Timing

SIDE_ON_GPU, SIDE_ON_CPU = 8192, 1024
SAMPLES = 5


def operands(device: torch.device) -> tuple[torch.dtype, Precision]:
    """The type of the products that the floor is made of: bfloat16 on a GPU, else float32."""
    return (torch.bfloat16, "bfloat16") if device.type == "cuda" else (torch.float32, "float32")


def multiplication_rate(device: torch.device) -> float:
    """Floating-point operations per second of a large square matrix product of random numbers."""
    side = SIDE_ON_GPU if device.type == "cuda" else SIDE_ON_CPU
    dtype, _ = operands(device)
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(first)
    one = Eager(lambda x: torch.mm(x, second, out=product), first)
    seconds_of(one, device)
    return 2 * side**3 / median(timed(one, repeat(first), 2 * SAMPLES, 1, device))


def floor(case: Case, rate: float, device: torch.device, with_products: bool) -> Floor:
    """The floor of a case.

    Args:
        case: the case.
        rate: operations per second, of `multiplication_rate`.
        device: that computes.
        with_products: whether to measure the case's own products too.
    """
    return Floor(
        operations=case.operations,
        rate=rate,
        rate_precision=operands(device)[1],
        products=products_alone(case, device) if with_products else None,
        aligned=True,
    )


def products_alone(case: Case, device: torch.device) -> float:
    """The matrix products of a case back to back, microseconds per timestep.

    Forward and the gradient of the input once each timestep, the gradient of the weights once
    for all timesteps; by torch.mm, in a CUDA graph on a GPU, with nothing between them. Sizes
    are rounded up to multiples of eight.
    """
    run = _products(case, device)
    nothing = torch.empty(0, device=device)
    one = (Captured if device.type == "cuda" else Eager)(run, nothing)
    return Timing.of(timed(one, repeat(nothing), SAMPLES, 1, device), case.timesteps).median


def _products(case: Case, device: torch.device) -> Callable[[Tensor], list[Tensor]]:
    rows, *unaligned = case.product
    # Rows of an odd number of bytes would make the library slow, and nobody need store them so
    inner, columns = (-(-size // 8) * 8 for size in unaligned)
    steps, dtype = case.timesteps, operands(device)[0]

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

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
