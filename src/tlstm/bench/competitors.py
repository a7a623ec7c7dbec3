"""The competitors: the layer by each implementation, and its peers in PyTorch.

Dimension letters of this file:
    T       timesteps
    B       examples
    I       features of the input
    M       channels
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.tensorized import TensorizedLSTM
from tlstm.ops import dispatch, reference
from tlstm.records.measurement import Case, Competitor, Implementation, Precision

WEIGHTS_SEED = 0
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Program(NamedTuple):
    """A case as one competitor computes it.

    Attributes:
        forward: from [T, B, I], or [B, I] for single timesteps, to the output.
        parameters: by name; gradients are taken of all.
        dtype: of the input.
    """

    forward: Callable[[Tensor], Tensor]
    parameters: dict[str, Tensor]
    dtype: torch.dtype


def competitors(case: Case, device: torch.device) -> list[Competitor]:
    """Return all competitors of a case on a device."""
    on_gpu = device.type == "cuda"
    if case.suite == "step":
        found = _STEPS_ON_GPU if on_gpu else _STEPS_ON_CPU
    elif on_gpu:
        found = _ON_GPU if case.suite == "targets" else _FEW_ON_GPU
    else:
        found = _ON_CPU
    if case.is_stack:
        return [each for each in found if each.implementation == "nn.LSTM"]
    if case.suite == "tasks":  # the sLSTM of the same task is the peer
        return [each for each in found if each.implementation != "nn.LSTM"]
    return found


def _each(
    implementations: Iterable[Implementation], precisions: Iterable[Precision], *cuda_graph: bool
) -> list[Competitor]:
    return [
        Competitor(implementation=implementation, precision=precision, cuda_graph=graphed)
        for implementation, precision, graphed in product(implementations, precisions, cuda_graph)
    ]


_ON_CPU = _each(["pytorch", "autograd", "torch.compile", "nn.LSTM"], ["float32"], False)
_ON_GPU = [
    *_each(["triton"], ["bfloat16"], False, True),
    *_each(["triton"], ["tf32", "float32"], True),
    *_each(["pytorch"], ["bfloat16"], False, True),
    *_each(["pytorch"], ["float32"], True),
    *_each(["autograd"], ["bfloat16"], False, True),
    *_each(["autograd"], ["tf32"], True),
    *_each(["autograd"], ["float32"], False),
    *_each(["torch.compile"], ["bfloat16"], True),
    *_each(["nn.LSTM"], ["float32", "tf32", "float16", "bfloat16"], False, True),
]
_FEW_ON_GPU = [
    *_each(["triton", "autograd"], ["bfloat16"], True),
    *_each(["nn.LSTM"], ["tf32", "float16"], False, True),
]
_STEPS_ON_CPU = _each(["pytorch", "autograd", "nn.LSTMCell"], ["float32"], False)
_STEPS_ON_GPU = [
    *_each(["triton"], ["float32", "bfloat16"], False, True),
    *_each(["pytorch", "autograd"], ["float32"], False, True),
    *_each(["nn.LSTMCell"], ["float32", "float16"], False, True),
]


@contextlib.contextmanager
def matrix_products(precision: Precision) -> Iterator[None]:
    """Set the precision of float32 matrix products, also within cuDNN, for a context."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def make_layer(case: Case, implementation: Implementation, device: torch.device) -> TensorizedLSTM:
    """Return the layer of a case in float32, the same weights for every implementation."""
    torch.manual_seed(WEIGHTS_SEED)
    return TensorizedLSTM(
        case.input_size,
        case.channels,
        case.tensor_size,
        rank=case.rank,
        kernel_size=case.kernel_size,
        memory_convolution=case.memory_convolution,
        normalization=case.normalization,
        device=device,
        implementation=cast(dispatch.Implementation, implementation),
    )


def program(case: Case, competitor: Competitor, device: torch.device) -> Program:
    """Return the program of a competitor for a case.

    Raises:
        ValueError: the competitor cannot compute the case.
    """
    peers = {"nn.LSTM": _stack, "nn.LSTMCell": _stack_of_cells, "torch.compile": _compiled}
    ours = _steps if case.suite == "step" else _sequence
    return peers.get(competitor.implementation, ours)(case, competitor, device)


def reference_program(case: Case, device: torch.device) -> Program:
    """Return the equations in float64, step by step under autograd, with `program`'s weights."""
    layer = make_layer(case, "autograd", device).double()
    return Program(
        lambda x: layer(x, stream=True)[0], dict(layer.named_parameters()), torch.float64
    )


def _autocast(competitor: Competitor, device: torch.device) -> torch.autocast:
    """Return an autocast to bfloat16 or float16, disabled for the other precisions."""
    dtype = DTYPES.get(competitor.precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _sequence(case: Case, competitor: Competitor, device: torch.device) -> Program:
    layer = make_layer(case, competitor.implementation, device)

    def forward(x: Tensor) -> Tensor:
        with _autocast(competitor, device):
            output: Tensor = layer(x, stream=True)[0]
        return output

    return Program(forward, dict(layer.named_parameters()), torch.float32)


def _steps(case: Case, competitor: Competitor, device: torch.device) -> Program:
    """Return single timesteps, each of which continues from the state of the last."""
    layer = make_layer(case, competitor.implementation, device)
    state = list(layer.initial_state(case.batch_size))

    def forward(x: Tensor) -> Tensor:
        with _autocast(competitor, device):
            output, new = layer.step(x, tuple(state))
        _keep(state, new, competitor.cuda_graph)
        return output

    return Program(forward, dict(layer.named_parameters()), torch.float32)


def _compiled(case: Case, competitor: Competitor, device: torch.device) -> Program:
    """Return a loop over the compiled step of `ops/reference.py`."""
    layer = make_layer(case, "autograd", device)
    torch.compiler.reset()  # compile the step again for every case
    step = torch.compile(reference.lstm_step, fullgraph=True, dynamic=False)
    kind = layer.normalization
    gain, bias = layer.normalization_gain, layer.normalization_bias
    norm = kind and reference.Normalization(kind, gain, bias)

    def forward(x: Tensor) -> Tensor:
        hidden, memory = layer.initial_state(x.shape[1])
        # Both require gradients from the second step on: one compiled function for all steps
        hidden.requires_grad_(torch.is_grad_enabled())
        memory.requires_grad_(torch.is_grad_enabled())
        outputs = []
        with _autocast(competitor, device):
            for projected in F.linear(x, layer.weight_input, layer.bias_input).unbind(0):
                hidden, memory = step(
                    projected, hidden, memory, layer.weight_hidden, layer.bias_hidden, norm
                )
                outputs.append(hidden.flatten(1, -2)[:, -1])
            return torch.stack(outputs)

    return Program(forward, dict(layer.named_parameters()), torch.float32)


def _stack(case: Case, competitor: Competitor, device: torch.device) -> Program:
    """Return nn.LSTM on a projected input; unlike the paper's, its layers share no weights."""
    dtype = DTYPES.get(competitor.precision, torch.float32)
    torch.manual_seed(WEIGHTS_SEED)
    project = nn.Linear(case.input_size, case.channels)
    stack = nn.LSTM(case.channels, case.channels, case.depth)
    both = nn.ModuleDict({"project": project, "stack": stack}).to(device, dtype)

    def forward(x: Tensor) -> Tensor:
        both.train(torch.is_grad_enabled())  # cuDNN prepares a backward pass in training mode
        output: Tensor = stack(project(x))[0]
        return output

    return Program(forward, dict(both.named_parameters()), dtype)


def _stack_of_cells(case: Case, competitor: Competitor, device: torch.device) -> Program:
    dtype = DTYPES.get(competitor.precision, torch.float32)
    torch.manual_seed(WEIGHTS_SEED)
    project = nn.Linear(case.input_size, case.channels).to(device, dtype)
    cells = nn.ModuleList(nn.LSTMCell(case.channels, case.channels) for _ in range(case.depth))
    cells.to(device, dtype)
    shape = case.depth, 2, case.batch_size, case.channels  # h and c of every cell
    states = [list(pair) for pair in torch.zeros(shape, device=device, dtype=dtype)]

    def forward(x: Tensor) -> Tensor:
        below = project(x)
        for one, state in zip(cells, states, strict=True):
            new = one(below, tuple(state))
            _keep(state, new, competitor.cuda_graph)
            below = new[0]
        return below

    return Program(forward, dict(cells.named_parameters()), dtype)


def _keep(state: list[Tensor], new: Iterable[Tensor], cuda_graph: bool) -> None:
    """Replace the state; in place for a CUDA graph, whose next replay reads the same memory."""
    if not cuda_graph:
        state[:] = new
        return
    for part, value in zip(state, new, strict=True):
        part.copy_(value)
