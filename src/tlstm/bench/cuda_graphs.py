"""One pass over a sequence: called, or replayed from a CUDA graph."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tlstm.bench.competitors import Program

Kind = Literal["forward", "training"]


def compute(program: Program, kind: Kind, x: Tensor, cotangent: Tensor) -> list[Tensor]:
    """Compute one pass.

    Args:
        program: the computation.
        kind: "forward", without gradients, or "training", with those of all parameters.
        x: the input, [T, B, I], or [B, I] for single timesteps.
        cotangent: of the output's shape; the loss is the sum of output · cotangent.

    Returns:
        The output and, in training, the gradients.
    """
    if kind == "forward":
        with torch.no_grad():
            return [program.forward(x)]
    output = program.forward(x)
    parameters = list(program.parameters.values())
    return [
        output.detach(),
        *torch.autograd.grad(output, parameters, cotangent.to(output.dtype)),
    ]


class Call:
    """A pass with its input in one place, replayed from a CUDA graph if there is one.

    Attributes:
        results: the tensors of the graph's pass, overwritten by every replay.
    """

    def __init__(self, run: Callable[[Tensor], list[Tensor]], x: Tensor, cuda_graph: bool) -> None:
        self.results: list[Tensor] = []
        self._run, self._x, self._graph = run, x.clone(), None
        if cuda_graph:
            self._graph = torch.cuda.CUDAGraph()
            self._capture(self._graph)

    def _capture(self, graph: torch.cuda.CUDAGraph) -> None:
        stream = torch.cuda.Stream()  # a capture needs a warm-up on a stream of its own
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run(self._x)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            self.results = self._run(self._x)  # kept, as a training step keeps its gradients

    def load(self, x: Tensor) -> None:
        """Replace the input."""
        self._x.copy_(x)

    def __call__(self) -> None:
        """Compute the pass."""
        if self._graph is None:
            self._run(self._x)
        else:
            self._graph.replay()
