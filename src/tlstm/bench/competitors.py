"""Who computes a case: the layer by each implementation, and what it is compared with.

Dimension letters of this file:
    T       timesteps
    B       examples
    I       features of the input
    M       channels
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.tensorized import TensorizedLSTM
from tlstm.ops import dispatch as fused
from tlstm.ops import reference as cell
from tlstm.records.measurement import Case, Competitor, Implementation, Precision

WEIGHTS_SEED = 0
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Program(NamedTuple):
    """A case as one competitor computes it.

    Attributes:
        forward: from [T, B, I], or [B, I] for single timesteps, to the output.
        parameters: by name, what gradients are taken of.
        dtype: of the input.
    """

    forward: Callable[[Tensor], Tensor]
    parameters: dict[str, Tensor]
    dtype: torch.dtype


def competitors(case: Case, device: torch.device) -> list[Competitor]:
    """All that a case is measured with on a device."""
    on_gpu = device.type == "cuda"
    if case.suite == "step":
        found = _STEPS_ON_GPU if on_gpu else _STEPS_ON_CPU
    elif not on_gpu:
        found = _ON_CPU
    elif case.suite == "targets":
        found = _ON_GPU
    else:
        found = _FEW_ON_GPU
    if case.is_stack:
        found = [each for each in found if each.implementation == "nn.LSTM"]
    elif case.suite == "tasks":
        # The sLSTM beside it is the peer, with a number of channels of its own
        found = [each for each in found if each.implementation != "nn.LSTM"]
    return found


def _each(
    implementation: Implementation, precisions: tuple[Precision, ...], *captured: bool
) -> list[Competitor]:
    return [
        Competitor(implementation=implementation, precision=precision, captured=mode)
        for precision in precisions
        for mode in captured
    ]


_ON_CPU = [
    *_each("pytorch", ("float32",), False),
    *_each("autograd", ("float32",), False),
    *_each("torch.compile", ("float32",), False),
    *_each("nn.LSTM", ("float32",), False),
]
_ON_GPU = [
    *_each("triton", ("bfloat16",), False, True),
    *_each("triton", ("tf32", "float32"), True),
    *_each("pytorch", ("bfloat16",), False, True),
    *_each("pytorch", ("float32",), True),
    *_each("autograd", ("bfloat16",), False, True),
    *_each("autograd", ("tf32",), True),
    *_each("autograd", ("float32",), False),
    *_each("torch.compile", ("bfloat16",), True),
    *_each("nn.LSTM", ("float32", "tf32", "float16", "bfloat16"), False, True),
]
_FEW_ON_GPU = [
    *_each("triton", ("bfloat16",), True),
    *_each("autograd", ("bfloat16",), True),
    *_each("nn.LSTM", ("tf32", "float16"), False, True),
]
_STEPS_ON_CPU = [
    *_each("pytorch", ("float32",), False),
    *_each("autograd", ("float32",), False),
    *_each("nn.LSTMCell", ("float32",), False),
]
_STEPS_ON_GPU = [
    *_each("triton", ("float32", "bfloat16"), False, True),
    *_each("pytorch", ("float32",), False, True),
    *_each("autograd", ("float32",), False, True),
    *_each("nn.LSTMCell", ("float32", "float16"), False, True),
]


@contextlib.contextmanager
def matrix_products(precision: Precision) -> Iterator[None]:
    """The precision of float32 matrix products, also within cuDNN, while the context lasts."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def make_layer(
    case: Case, implementation: fused.Implementation, device: torch.device
) -> TensorizedLSTM:
    """The layer of a case, in float32, with the same weights whoever computes it."""
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
        implementation=implementation,
    )


def program(case: Case, competitor: Competitor, device: torch.device) -> Program:
    """What a competitor computes.

    Raises:
        ValueError: the competitor cannot compute the case.
    """
    if competitor.implementation == "nn.LSTM":
        return _stack(case, competitor, device)
    if competitor.implementation == "nn.LSTMCell":
        return _stack_of_cells(case, competitor, device)
    if competitor.implementation == "torch.compile":
        return _compiled(make_layer(case, "autograd", device), competitor, device)
    layer = make_layer(case, competitor.implementation, device)
    if case.suite == "step":
        return _steps(layer, case, competitor, device)
    return _whole(layer, competitor, device)


def reference(case: Case, device: torch.device) -> Program:
    """The equations in float64, step by step under autograd, with the weights of `program`."""
    layer = make_layer(case, "autograd", device).double()
    return Program(
        lambda x: layer(x, stream=True)[0], dict(layer.named_parameters()), torch.float64
    )


def _autocast(competitor: Competitor, device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 or float16 operands, where that is the precision."""
    dtype = DTYPES.get(competitor.precision)
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def _whole(layer: TensorizedLSTM, competitor: Competitor, device: torch.device) -> Program:
    def forward(x: Tensor) -> Tensor:
        with _autocast(competitor, device):
            output: Tensor = layer(x, stream=True)[0]
        return output

    return Program(forward, dict(layer.named_parameters()), torch.float32)


def _steps(
    layer: TensorizedLSTM, case: Case, competitor: Competitor, device: torch.device
) -> Program:
    """Single timesteps, each of which goes on where the last one ended."""
    state = list(layer.initial_state(case.batch_size))

    def forward(x: Tensor) -> Tensor:
        with _autocast(competitor, device):
            output, new = layer.step(x, tuple(state))
        _keep(state, new, competitor.captured)
        return output

    return Program(forward, dict(layer.named_parameters()), torch.float32)


def _compiled(layer: TensorizedLSTM, competitor: Competitor, device: torch.device) -> Program:
    """The step of `cell.py` compiled, called from a loop."""
    torch.compiler.reset()  # the code of one step is compiled anew for every case
    step = torch.compile(cell.lstm_step, fullgraph=True, dynamic=False)
    kind = layer.normalization
    norm = kind and cell.Normalization(kind, layer.normalization_gain, layer.normalization_bias)

    def forward(x: Tensor) -> Tensor:
        hidden, memory = layer.initial_state(x.shape[1])
        # As from the second step on, so that one compiled function serves every step
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


class _ProjectedStack(nn.Module):
    """nn.LSTM of L layers on a projected input; unlike the paper's, its layers share nothing."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.project = nn.Linear(case.input_size, case.channels)
        self.stack = nn.LSTM(case.channels, case.channels, case.depth)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.stack(self.project(x))[0]
        return output


def _stack(case: Case, competitor: Competitor, device: torch.device) -> Program:
    dtype = DTYPES.get(competitor.precision, torch.float32)
    torch.manual_seed(WEIGHTS_SEED)
    module = _ProjectedStack(case).to(device, dtype)

    def forward(x: Tensor) -> Tensor:
        module.train(torch.is_grad_enabled())  # else cuDNN prepares for a backward pass
        output: Tensor = module(x)
        return output

    return Program(forward, dict(module.named_parameters()), dtype)


def _stack_of_cells(case: Case, competitor: Competitor, device: torch.device) -> Program:
    dtype = DTYPES.get(competitor.precision, torch.float32)
    torch.manual_seed(WEIGHTS_SEED)
    project = nn.Linear(case.input_size, case.channels).to(device, dtype)
    cells = nn.ModuleList(nn.LSTMCell(case.channels, case.channels) for _ in range(case.depth))
    cells.to(device, dtype)
    shape = 2, case.batch_size, case.channels  # h and c
    states = [
        list(torch.zeros(shape, device=device, dtype=dtype).unbind(0)) for _ in range(case.depth)
    ]

    def forward(x: Tensor) -> Tensor:
        below = project(x)
        for one, state in zip(cells, states, strict=True):
            new = one(below, tuple(state))
            _keep(state, new, competitor.captured)
            below = new[0]
        return below

    return Program(forward, dict(cells.named_parameters()), dtype)


def _keep(state: list[Tensor], new: Iterable[Tensor], captured: bool) -> None:
    """Go on with the new state; a CUDA graph finds it where it was in its next replay."""
    if not captured:
        state[:] = new
        return
    for part, value in zip(state, new, strict=True):
        part.copy_(value)
