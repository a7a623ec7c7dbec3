"""Errors of outputs and gradients against the equations in float64.

They are taken over several draws of random inputs together: in a single draw the sum that makes
a gradient may nearly cancel, and its relative error then says little.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tlstm.bench.competitors import Program, reference_program
from tlstm.bench.cuda_graphs import compute
from tlstm.records.measurement import Case, Errors

OUTPUTS = 10  # compared timesteps whose output depends on an input
SEEDS = (1, 2, 3, 4)  # of the draws

Draw = tuple[Tensor, Tensor]


def draw(case: Case, timesteps: Sequence[int], seed: int, device: torch.device) -> Draw:
    """Return a random input [T, B, I] and the weights of the output in the loss [T, B, M].

    Args:
        case: the case.
        timesteps: T alone; empty for [B, I] and [B, M].
        seed: of the random numbers.
        device: the device.
    """
    torch.manual_seed(seed)
    shape = *timesteps, case.batch_size
    x = torch.randn(*shape, case.input_size, device=device)
    return x, torch.randn(*shape, case.channels, device=device)


class Reference:
    """Output and gradients of a case for every draw, in float64, by `tlstm.ops.reference`."""

    def __init__(self, case: Case, device: torch.device) -> None:
        timesteps = [case.depth - 1 + OUTPUTS]
        self._draws = [draw(case, timesteps, seed, device) for seed in SEEDS]
        self._expected = _compute_all(reference_program(case, device), self._draws)

    def errors(self, program: Program) -> Errors:
        """Return the relative root mean square errors of a program with the same weights."""
        found = _compute_all(program, self._draws)
        errors = {name: relative_error(found[name], self._expected[name]) for name in found}
        output = errors.pop("")
        worst = max(errors, key=lambda name: errors[name])
        timesteps = len(self._draws[0][0])
        return Errors(timesteps=timesteps, output=output, gradient=errors[worst], worst=worst)


def _compute_all(program: Program, draws: Sequence[Draw]) -> dict[str, list[Tensor]]:
    """Return the output, named "", and the gradients by parameter, each for all draws."""
    results = [
        compute(program, "training", x.to(program.dtype), cotangent) for x, cotangent in draws
    ]
    names = ["", *program.parameters]
    return {name: list(of_name) for name, *of_name in zip(names, *results, strict=True)}


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return ‖found − expected‖ / ‖expected‖ in float64, or ‖found‖ where all expected are 0.

    Args:
        found: the same quantity in every draw; the norms are taken over all of them together.
        expected: its values in float64.

    Raises:
        ValueError: a number is not finite.
    """
    differences = [(a.double() - b).norm() for a, b in zip(found, expected, strict=True)]
    difference = torch.stack(differences).norm()
    if not torch.isfinite(difference):
        raise ValueError("an output or a gradient is not finite")
    size = torch.stack([each.norm() for each in expected]).norm()
    return float(difference / size if size > 0 else difference)
