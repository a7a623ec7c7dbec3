"""How far outputs and gradients are from the equations in float64.

The numbers are those of several draws of random inputs together. In one of them alone the sum that
a gradient is may happen to nearly cancel, and its relative error then says little.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tlstm.bench.competitors import Program, reference
from tlstm.bench.passes import compute, output_dtype
from tlstm.records.measurement import Case, Errors

OUTPUTS = 10  # timesteps of the outputs that have seen an input, of those that are compared
SEEDS = (1, 2, 3, 4)  # of the draws


class Draw(NamedTuple):
    """A sequence of L + 9 timesteps T of random numbers, so that ten outputs have seen an input.

    Attributes:
        x: the input, [T, B, I].
        cotangent: the weights of the output in the loss, [T, B, M].
    """

    x: Tensor
    cotangent: Tensor

    @classmethod
    def of(cls, case: Case, seed: int, device: torch.device) -> "Draw":
        """The draw of a case that belongs to a seed."""
        torch.manual_seed(seed)
        shape = case.depth - 1 + OUTPUTS, case.batch_size
        x = torch.randn(*shape, case.input_size, device=device)
        return cls(x, torch.randn(*shape, case.channels, device=device))


class Truth:
    """Output and gradients of a case for every draw, in float64, by `tlstm.cell`."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self._draws = [Draw.of(case, seed, device) for seed in SEEDS]
        self._expected = _computed(reference(case, device), self._draws)

    def errors(self, program: Program) -> Errors:
        """Relative root mean square errors of a program with the same weights."""
        found = _computed(program, self._draws)
        errors = {name: relative_error(found[name], self._expected[name]) for name in found}
        output = errors.pop("")
        worst = max(errors, key=lambda name: errors[name])
        timesteps = len(self._draws[0].x)
        return Errors(timesteps=timesteps, output=output, gradient=errors[worst], worst=worst)


def _computed(program: Program, draws: Sequence[Draw]) -> dict[str, list[Tensor]]:
    """The output, by the name "", and the gradients by those of their parameters, of all draws."""
    dtype = output_dtype(program, draws[0].x.to(program.dtype))
    results = [
        compute(program, "training", draw.x.to(program.dtype), draw.cotangent.to(dtype))
        for draw in draws
    ]
    names = ["", *program.parameters]
    return {name: list(of_name) for name, *of_name in zip(names, *results, strict=True)}


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """‖found − expected‖ / ‖expected‖, in float64; where all of it should be 0, ‖found‖.

    Args:
        found: the same quantity in every draw; the norms are taken over all of them together.
        expected: what they should be, in float64.

    Raises:
        ValueError: a number is not finite.
    """
    differences = [(a.double() - b).norm() for a, b in zip(found, expected, strict=True)]
    difference = torch.stack(differences).norm()
    if not torch.isfinite(difference):
        raise ValueError("an output or a gradient is not finite")
    size = torch.stack([each.norm() for each in expected]).norm()
    return float(difference / size if size > 0 else difference)
