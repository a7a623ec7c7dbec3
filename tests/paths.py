"""The ways to compute a layer, each on its device and with its precision, and the reference.

A test that takes a `path` runs on the CPU and, where there is one, on a GPU.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import variants
from oracle import Options
from variants import LENGTHS, Result, as_tuple, assert_near, outcome, random_state


class Path(NamedTuple):
    """A way to compute, and its tolerance against float64 on the CPU."""

    implementation: str
    device: str
    dtype: torch.dtype
    tolerance: float


PYTORCH = Path("pytorch", "cpu", torch.float64, 1e-12)
PATHS = [
    pytest.param(PYTORCH, id="pytorch"),
    pytest.param(PYTORCH._replace(device="cuda"), id="pytorch-cuda", marks=pytest.mark.gpu),
    pytest.param(Path("triton", "cuda", torch.float32, 1e-5), id="triton", marks=pytest.mark.gpu),
]
for_each_path = pytest.mark.parametrize("path", PATHS)


def pair(path: Path, options: Options, channels: int = variants.CHANNELS) -> tuple[Any, Any]:
    """A layer on this path, and the reference with the same weights."""
    layer = variants.make_layer(options, channels, implementation=path.implementation)
    layer.to(path.device, path.dtype)
    reference = variants.make_layer(options, channels, implementation="autograd")
    reference.load_state_dict(layer.state_dict())
    return layer, reference


def rounded(path: Path, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    """The inputs and the state with no more digits than the path takes."""
    return (
        inputs.to(path.dtype).double(),
        variants.change_state(state, lambda part: part.to(path.dtype).double()),
    )


def moved(path: Path, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    """The inputs and the state as the path takes them."""
    return (
        inputs.to(path.device, path.dtype),
        variants.change_state(state, lambda part: part.to(path.device, path.dtype)),
    )


def called(module: Any, inputs: Tensor, state: Any, **arguments: Any) -> Result:
    return module(inputs, state, **arguments)


# Forms of a call, for len(LENGTHS) examples

FORMS = {
    f"{'stream' if stream else 'whole'}{', lengths' if lengths else ''}": partial(
        called, stream=stream, lengths=lengths
    )
    for stream in (False, True)
    for lengths in (None, LENGTHS)
}


def assert_agreement(
    path: Path, options: Options, forward: variants.Forward, inputs: Tensor
) -> None:
    """Values and all gradients are the cell's, for random inputs, states and cotangents."""
    layer, reference = pair(path, options)
    state = random_state(reference, inputs.shape[1])
    actual = outcome(layer, forward, *moved(path, inputs, state))
    expected = outcome(reference, forward, *rounded(path, inputs, state))
    assert all(value.dtype == path.dtype for value in actual.values())
    assert_near(actual, expected, path.tolerance)


# Layouts in memory, with numbers between those of the tensor that must not be read


def column(tensor: Tensor) -> Tensor:
    table = tensor.new_full([*tensor.shape, 2], 77)
    return table[..., 1].copy_(tensor)


def narrowed(tensor: Tensor) -> Tensor:
    larger = tensor.new_full([size + 3 for size in tensor.shape], 77)
    return larger[(slice(1, -2),) * tensor.dim()].copy_(tensor)


def transposed(tensor: Tensor) -> Tensor:
    axes = tuple(reversed(range(tensor.dim())))
    return tensor.permute(axes).contiguous().permute(axes)


def expanded(tensor: Tensor) -> Tensor:
    return tensor[:1].clone().expand_as(tensor)


LAYOUTS = [Tensor.clone, column, narrowed, transposed, expanded]
INTEGERS = [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64]


def assert_layouts_do_not_matter(
    path: Path,
    options: Options,
    layouts: Sequence[Callable[[Tensor], Tensor]],
    integer: torch.dtype,
) -> None:
    """Inputs, states, lengths, weights and cotangents, each in the next of the layouts."""
    layer, _ = pair(path, options)
    inputs, state = moved(path, variants.random_inputs(batch_size=3), random_state(layer, 3))
    output, last = layer(inputs, state)
    parts = as_tuple(state)
    cotangents = [
        variants.random_tensor(*part.shape).to(part) for part in (output, *as_tuple(last))
    ]
    lengths = torch.tensor(LENGTHS, dtype=integer, device=path.device)
    tensors = [inputs, *parts, lengths, *cotangents, *(p.detach() for p in layer.parameters())]
    scattered = [layout(each) for layout, each in zip(cycle(layouts), tensors, strict=False)]

    def results(arguments: list[Tensor]) -> dict[str, Tensor]:
        given, after = arguments[: len(parts) + 1], arguments[len(parts) + 2 :]
        for parameter, value in zip(layer.parameters(), after[len(cotangents) :], strict=True):
            parameter.data = value
        for each in given:
            each.requires_grad_()
        output, last = layer(
            given[0], variants.like(state, given[1:]), lengths=arguments[len(parts) + 1]
        )
        found = [output, *as_tuple(last)]
        sources = [*given, *layer.parameters()]
        gradients = torch.autograd.grad(found, sources, after[: len(cotangents)])
        return {str(number): each.detach() for number, each in enumerate((*found, *gradients))}

    expected = results([each.clone(memory_format=torch.contiguous_format) for each in scattered])
    assert_near(results(scattered), expected, 0.1 * path.tolerance)
