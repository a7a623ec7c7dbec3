"""The ways to compute a layer, each on its device and with its precision, and the reference.

A test that takes a `path` runs on the CPU and, where there is one, on a GPU.
"""

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import variants
from oracle import Options
from variants import LENGTHS, Result, assert_near, outcome, random_state


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
