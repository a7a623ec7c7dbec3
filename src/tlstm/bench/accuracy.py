"""How far outputs and gradients are from the equations in float64."""

import torch
from torch import Tensor

from tlstm.bench.competitors import Program, reference
from tlstm.bench.measurement import Case, Errors
from tlstm.bench.passes import compute, output_dtype

OUTPUTS = 10  # timesteps of the outputs that have seen an input, of those that are compared


class Truth:
    """Output and gradients of a case in float64, by `tlstm.cell`.

    The sequence is L + 9 timesteps of random numbers, so that ten outputs have seen an input.
    """

    def __init__(self, case: Case, device: torch.device) -> None:
        torch.manual_seed(1)
        steps = case.depth - 1 + OUTPUTS
        self.x = torch.randn(steps, case.batch_size, case.input_size, device=device)
        self.cotangent = torch.randn(steps, case.batch_size, case.channels, device=device)
        program = reference(case, device)
        results = compute(program, "training", self.x.double(), self.cotangent.double())
        self._expected = dict(zip(["", *program.parameters], results, strict=True))

    def errors(self, program: Program) -> Errors:
        """Relative root mean square errors of a program with the same weights."""
        x = self.x.to(program.dtype)
        cotangent = self.cotangent.to(output_dtype(program, x))
        results = compute(program, "training", x, cotangent)
        found = dict(zip(["", *program.parameters], results, strict=True))
        errors = {name: relative_error(found[name], self._expected[name]) for name in found}
        output = errors.pop("")
        worst = max(errors, key=lambda name: errors[name])
        return Errors(timesteps=len(x), output=output, gradient=errors[worst], worst=worst)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖, in float64; where all of it should be 0, ‖found‖.

    Raises:
        ValueError: a number is not finite.
    """
    difference = (found.double() - expected).norm()
    if not torch.isfinite(difference):
        raise ValueError("an output or a gradient is not finite")
    size = expected.norm()
    return float(difference / size if size > 0 else difference)
