"""Compile the kernels for an NVIDIA GPU, without one.

Print the names of the compiled kernels, and of those that were launched again without Triton's
search; the arguments of such a launch are checked against the first ones.

The compiler refuses code that the interpreter accepts, such as a variable that changes its type.
test_kernels.py runs this file in its own process, because it replaces Triton's driver by one that
names the GPU and launches nothing.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from tlstm import TensorizedLSTM, TensorizedRNN
from tlstm.ops import triton
from tlstm.ops.shapes import Weights

HOPPER = GPUTarget("cuda", 90, 32)


class Named:
    """A driver for a GPU of which only the name is known."""

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


compiled: set[str] = set()
launched: set[str] = set()
run = JITFunction.run


class Compiled:
    """A compiled kernel that checks, instead of launching, that it suits the arguments."""

    def __init__(self, kernel: JITFunction, arguments: tuple[Any, ...], options: Any) -> None:
        self.kernel = kernel
        constants = {name: options[name] for name in kernel.arg_names if name in options}
        bound = inspect.signature(kernel.fn).bind(*arguments, **constants)
        self.suits = self.kinds(bound.args)

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        assert len(grid) == 3
        return self.check

    def check(self, *arguments: Any) -> None:
        assert self.kinds(arguments) == self.suits
        launched.add(self.kernel.__name__)

    def kinds(self, arguments: tuple[Any, ...]) -> list[Any]:
        """Return the properties of arguments on which a compiled kernel depends."""
        return [
            (each.dtype, each.data_ptr() % 16 == 0)
            if isinstance(each, torch.Tensor)
            else each
            if number in self.kernel.constexprs
            else type(each)
            for number, each in enumerate(arguments)
        ]


def compile_only(
    self: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any
) -> Any:
    assert run(self, *arguments, grid=grid, warmup=True, **options).asm["cubin"]
    compiled.add(self.__name__)
    return Compiled(self, arguments, options)


def layers() -> Iterator[tuple[TensorizedLSTM | TensorizedRNN, int]]:
    """Layers and batch sizes that between them take every kernel and every branch."""
    yield TensorizedRNN(1, 20, 2, rank=3), 3
    yield TensorizedLSTM(1, 20, 3, memory_convolution=False, kernel_size=2), 3
    yield TensorizedLSTM(1, 100, 5), 50
    yield TensorizedLSTM(1, 20, 3, rank=3, normalization="layer"), 3
    yield TensorizedLSTM(1, 20, 3, rank=3, normalization="channel"), 3
    yield TensorizedLSTM(1, 256, 2, rank=3, normalization="channel"), 64


def main() -> None:
    driver.set_active(Named())
    JITFunction.run = compile_only
    for layer, batch_size in layers():
        state = layer.initial_state(batch_size)
        hidden, cell = state if isinstance(state, tuple) else (state, None)
        kind, gain, norm_bias = layer._normalization() or ("", None, None)
        weights = Weights(layer.weight_hidden, layer.bias_hidden, gain, norm_bias)
        steps = torch.zeros(3, batch_size, layer.channels)
        lengths = torch.ones(batch_size, dtype=torch.int64) if kind else None
        with torch.no_grad():
            output, *_, saved = triton.forward_sequence(
                steps, hidden, cell, weights, lengths, 3, torch.bfloat16, kind, True
            )
            triton.backward_sequence(
                output, hidden, cell, steps, hidden, cell, weights, lengths, 3, kind, saved
            )
    print(*sorted(compiled))
    print(*sorted(launched))


if __name__ == "__main__":
    main()
